// Package secret holds values that cannot be printed by accident: passwords,
// passphrases, tokens. Every way of formatting or encoding one gives "[secret]";
// the one way to the value is Reveal, which is easy to find in a review.
package secret

import "log/slog"

const mask = "[secret]"

// Text is a secret string. The zero value is the empty secret.
type Text struct{ v string }

// New makes a secret of s.
func New(s string) Text { return Text{v: s} }

// Reveal gives the value. Only the code that hands it to the other side calls it.
func (t Text) Reveal() string { return t.v }

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.v == "" }

// String gives the mask.
func (Text) String() string { return mask }

// GoString gives the mask, for %#v.
func (Text) GoString() string { return mask }

// MarshalText gives the mask, for JSON, YAML and everything like them.
func (Text) MarshalText() ([]byte, error) { return []byte(mask), nil }

// UnmarshalText takes a value, so that a secret can stand in a configuration.
func (t *Text) UnmarshalText(b []byte) error { t.v = string(b); return nil }

// LogValue gives the mask.
func (Text) LogValue() slog.Value { return slog.StringValue(mask) }
