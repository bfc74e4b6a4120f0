// Package secret holds values that cannot be printed by accident: passwords,
// passphrases, tokens. Every way of formatting or encoding one gives "[secret]";
// the one way to the value is Reveal, which is easy to find in a review.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const mask = "[secret]"

// Text is a secret string. The zero value is the empty secret. Texts are
// compared by what they reveal, not with ==.
type Text struct {
	// Behind a pointer, for package fmt prints the unexported fields of others'
	// structs without asking their types; of a pointer it prints the address.
	v *string
}

// New makes a secret of s.
func New(s string) Text { return Text{v: &s} }

// Reveal gives the value. Only the code that hands it to the other side calls it.
func (t Text) Reveal() string {
	if t.v == nil {
		return ""
	}
	return *t.v
}

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// String gives the mask.
func (Text) String() string { return mask }

// Format gives the mask whatever the verb; %d and its like would go around
// String.
func (Text) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, mask) }

// MarshalText gives the mask, for JSON, YAML and everything like them.
func (Text) MarshalText() ([]byte, error) { return []byte(mask), nil }

// UnmarshalText takes a value, so that a secret can stand in a configuration.
func (t *Text) UnmarshalText(b []byte) error { *t = New(string(b)); return nil }

// LogValue gives the mask.
func (Text) LogValue() slog.Value { return slog.StringValue(mask) }
