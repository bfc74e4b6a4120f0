package terminal

// Mark tells on which line of a Picture a command stands.
type Mark struct {
	ID   string // of the command
	Line int    // 0 is the first line of the scrollback that was sent
}
