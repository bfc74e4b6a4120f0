package completion_test

import (
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
)

func TestPrompts(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"$ ", "# ", "% ", "> ", "$", "me@web1:~$ ", "root@web1:/etc# ", "[me@web1 ~]$ ", "bash-5.2# ", "(venv) me@web1:~$ ", "web1% ", "me@mac ~ % ", "~/src (main) $ ",
		"switch>", "Switch#", "Router(config-if)#", "me@junos> ", "me@junos# ", "[admin@MikroTik] > ", "[admin@MikroTik] /ip address> ", "<HUAWEI>", "HP-2530-24G# ", "(Cisco Controller) >", "FGT60E # ",
		"mysql> ", "MariaDB [(none)]> ", "postgres=# ", "postgres=> ", "sqlite> ", "ftp> ", ">>> ", "me@web1 ~> ", "C:\\Users\\me>", "PS C:\\> ", "\\u00e4@漢字:~$ ",
	} {
		if !is(t, line) {
			t.Errorf("%q is a prompt", line)
		}
	}
	for _, line := range []string{
		"", " ", "Password:", "Password: ", "[sudo] password for me: ", "Are you sure you want to continue connecting (yes/no)? ", "Continue? [Y/n] ", "login: ", "--More--", ":", "(END)",
		"50%", " 50%", "Downloading 12.5 %", "[=====>    ] 40%", "(3/7) 99,9%", "100%", "========>", "[===>", "#########", "## ", "%%", "$$", "a -> ", "   -> ", "    ...> ", "postgres-> ",
		"</html>", "<br/>", "me <me@example.com>", "compiling", "$  ", "make[1]: *** [all] Error 1", strings.Repeat("x", 120) + "$ ", strings.Repeat("x", 1000) + "$",
	} {
		if is(t, line) {
			t.Errorf("%q is no prompt", line)
		}
	}
}

func is(t *testing.T, line string) bool {
	t.Helper()
	p, err := completion.NewPrompts(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Is(line)
}

func TestPromptsLearned(t *testing.T) {
	t.Parallel()
	p, err := completion.NewPrompts(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Is("❯ ") || p.Is("device:") {
		t.Error("not yet")
	}
	p.Learn("❯ ")
	p.Learn("device:")
	p.Learn("")
	p.Learn("  ")
	p.Learn(strings.Repeat("x", 121))
	if !p.Is("❯ ") || !p.Is("❯") || !p.Is("device: ") || p.Is("") || p.Is(strings.Repeat("x", 121)) || !p.Is("$ ") {
		t.Error("it has learned something else")
	}
	for i := range 20 { // only the latest are kept
		p.Learn(strings.Repeat("y", i+1))
	}
	if p.Is("device:") || !p.Is("yyyyy") {
		t.Error("it forgets the wrong ones")
	}
}

func TestPromptPatterns(t *testing.T) {
	t.Parallel()
	p, err := completion.NewPrompts([]string{`^-> $`, `^\[.*\]$`})
	if err != nil {
		t.Fatal(err)
	}
	if !p.Is("-> ") || !p.Is("[HUAWEI-GigabitEthernet0/0/1]") || p.Is("me$ ") {
		t.Error("the patterns are all that counts")
	}
	_, err = completion.NewPrompts([]string{"ok", "("})
	if fault.KindOf(err) != fault.Invalid || fault.From(err).Hint == "" {
		t.Error(err)
	}
}

func FuzzPrompts(f *testing.F) {
	for _, s := range []string{"$ ", "50%", "<a>", "me@web1:~$ ", "\xff\xfe$", "漢字>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p, _ := completion.NewPrompts(nil)
		if p.Is(line) {
			if end := strings.TrimSuffix(line, " "); end == "" || !strings.ContainsAny(end[len(end)-1:], "$#>%") || len(line) > 500 {
				t.Errorf("%q", line)
			}
		}
		p.Learn(line)
		if known := strings.TrimSpace(strings.Trim(line, " ")) != "" && len(line) <= 120; known && !p.Is(line) {
			t.Errorf("%q was not learned", line)
		}
	})
}
