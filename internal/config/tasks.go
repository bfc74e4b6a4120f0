package config

import "time"

// Tasks bounds the tasks that run and wait.
type Tasks struct {
	// Tasks that run at once. One that waits for people, or that is undone, does not count.
	MaxRunning int `yaml:"max_running" default:"20" min:"1" max:"10000"`
	// Tasks that wait for their turn; one more is refused.
	MaxQueued int `yaml:"max_queued" default:"1000" min:"1" max:"100000"`
	// How long a step that its task wants approved waits for that, where no rule says.
	ApprovalTimeout time.Duration `yaml:"approval_timeout" default:"24h" min:"1s" max:"720h"`
}
