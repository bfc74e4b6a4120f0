package config

import (
	"reflect"

	"github.com/telexec/telexec/internal/secret"
)

// Changed gives the keys whose settings differ in other, in the order of the
// documentation: "log.level", "hosts". Lists and mappings are compared as wholes.
// The key of a file differs also where only the content that was read from it
// does. No value is shown. Where a setting stands is no difference.
func (c Config) Changed(other Config) []string {
	return changed(reflect.ValueOf(c), reflect.ValueOf(other), "")
}

// changed compares two structs of settings.
func changed(a, b reflect.Value, prefix string) []string {
	differs := make(map[string]bool) // by the last word of the key
	for f, v := range a.Fields() {
		key := f.Tag.Get("yaml")
		if key == "-" {
			key = f.Tag.Get("of")
		}
		if key != "" && !isSection(f.Type) && !same(v, b.FieldByIndex(f.Index)) {
			differs[key] = true
		}
	}
	var keys []string
	for f, v := range a.Fields() {
		switch name := f.Tag.Get("yaml"); {
		case isSection(f.Type):
			keys = append(keys, changed(v, b.FieldByIndex(f.Index), prefix+name+".")...)
		case differs[name]:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

// same compares two settings of one type. Secrets are equal by what they hide, and
// lists and mappings without elements are equal.
func same(a, b reflect.Value) bool {
	if s, ok := a.Interface().(secret.Text); ok {
		return s.Reveal() == b.Interface().(secret.Text).Reveal()
	}
	switch {
	case isSection(a.Type()):
		return len(changed(a, b, "")) == 0
	case a.Kind() == reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case a.Kind() == reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for k, v := range a.Seq2() {
			if w := b.MapIndex(k); !w.IsValid() || !same(v, w) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}
