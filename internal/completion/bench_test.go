package completion_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/completion"
)

// BenchmarkCommand is the time from Enter to the next prompt, with and without the
// integration.
func BenchmarkCommand(b *testing.B) {
	rc := map[string]map[string]string{
		"bash": {".bash_profile": "PS1='re''ady> '\n"},
		"zsh":  {".zshrc": "PS1='ready> '\n"},
		"fish": {".config/fish/config.fish": "function fish_prompt; echo -n 'ready> '; end\n"},
		"dash": {".profile": "PS1='ready> '\n"},
		"mksh": {".profile": "PS1='ready> '\n"},
	}
	for _, kind := range []string{"bash", "zsh", "fish", "dash", "mksh"} {
		for name, bare := range map[string]bool{"with": false, "without": true} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				c := open(b, setup{kind: kind, bare: bare, rc: rc[kind], env: []string{"fish_greeting="}})
				c.quiet(func() bool { return true })
				for b.Loop() {
					c.write("true\r")
					deadline := time.After(patience)
					var out []byte
					for !bytes.Contains(out, []byte("ready> ")) || kind == "zsh" && !bytes.Contains(out, []byte("2004h")) {
						select {
						case chunk := <-c.chunks:
							c.parser.Write(chunk, func(s completion.Segment) { out = append(out, s.Data...) })
						case <-deadline:
							b.Fatalf("no prompt in %q", out)
						}
					}
				}
			})
		}
	}
}

// BenchmarkStart is the time to the first prompt.
func BenchmarkStart(b *testing.B) {
	for _, kind := range shells {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				open(b, setup{kind: kind}).close()
			}
		})
	}
}
