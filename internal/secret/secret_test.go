package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/telexec/telexec/internal/secret"
)

const value = "hunter2-Passw0rd"

// However a secret is printed, alone or deep inside, its value does not show.
func TestNothingPrintsIt(t *testing.T) {
	type inner struct {
		Password secret.Text
		Pointer  *secret.Text
		List     []secret.Text
		Map      map[string]secret.Text
		private  secret.Text
	}
	text := secret.New(value)
	deep := inner{text, &text, []secret.Text{text}, map[string]secret.Text{"k": text}, text}

	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%p", "%T"} {
		out = append(out, fmt.Sprintf(verb, text), fmt.Sprintf(verb, &text), fmt.Sprintf(verb, deep), fmt.Sprintf(verb, &deep))
	}
	out = append(out, fmt.Sprint(text, &text, deep), fmt.Errorf("failed with %v", text).Error(), text.String(), "concatenated: "+text.String())

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("login", "password", text, "pointer", &text, "deep", deep, slog.Group("g", "p", text))
	}
	out = append(out, log.String())

	for name, encode := range map[string]func(any) ([]byte, error){"json": json.Marshal, "yaml": yaml.Marshal} {
		raw, err := encode(deep)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		out = append(out, string(raw))
	}
	raw, err := xml.Marshal(text)
	if err != nil {
		t.Errorf("xml: %v", err)
	}
	out = append(out, string(raw))

	for _, s := range out {
		for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), fmt.Sprint([]byte(value))} {
			if strings.Contains(s, form) {
				t.Errorf("the value shows in %q", s)
			}
		}
	}
}

func TestReveal(t *testing.T) {
	text := secret.New(value)
	if text.Reveal() != value || text.IsZero() {
		t.Errorf("revealed %q, zero %v", text.Reveal(), text.IsZero())
	}
	var empty secret.Text
	if empty.Reveal() != "" || !empty.IsZero() {
		t.Errorf("the zero value reveals %q, zero %v", empty.Reveal(), empty.IsZero())
	}
}

func TestUnmarshal(t *testing.T) {
	var settings struct{ Password secret.Text }
	if err := yaml.Unmarshal([]byte("password: "+value), &settings); err != nil || settings.Password.Reveal() != value {
		t.Errorf("YAML gives %q, %v", settings.Password.Reveal(), err)
	}
	settings.Password = secret.Text{}
	if err := json.Unmarshal([]byte(`{"password": "`+value+`"}`), &settings); err != nil || settings.Password.Reveal() != value {
		t.Errorf("JSON gives %q, %v", settings.Password.Reveal(), err)
	}
}
