package screen

// Width gives how many cells characters take.
func Width() func(r rune) int { return New(2, 1, 0).width }
