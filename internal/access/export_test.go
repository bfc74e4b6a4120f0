package access

// Seal ends an API key's token with its checksum, for tests of forged ones.
func Seal(body string) string { return body + checksum(body) }

// MaxBuckets bounds what a Limiter remembers.
const MaxBuckets = maxBuckets

// Remembered is how many principals and addresses the limiter knows.
func (l *Limiter) Remembered() (principals, addresses int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.principals.of), len(l.addresses.of)
}

// ParseKeySet is parseKeySet.
func ParseKeySet(text []byte) (int, error) {
	keys, err := parseKeySet(text)
	return len(keys), err
}
