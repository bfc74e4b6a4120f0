package policy_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/telexec/telexec/internal/policy"
)

// What is found in a line: its simple commands, those with something unknown
// about them with a ? in front; for one that cannot be taken apart, what the
// reason says.
func TestWhatIsFound(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow})
	for _, c := range []struct{ line, want string }{
		{"ls -l | sort", "ls -l | sort"},
		{"! ls & (df; date) || { uptime; }", "ls | df | date | uptime"},
		{"if a; then b; elif c; then d; else e; fi", "a | b | c | d | e"},
		{"while a; do b; done; until c; do d; done", "a | b | c | d"},
		{"for x in $(a) `b`; do c; done", "a | b | c"},
		{"for x; do c; done", "c"},
		{"case $(a) in $(b)) c;; *) d;; esac", "a | b | c | d"},
		{`echo "$(a "$(b)")" x$(c)y`, `b | ?a "$(b)" | c | ?echo "$(a "$(b)")" x$(c)y`},
		{"x=$(a) b", "a | b"},
		{"x=$(a)", "a"},
		{"a <<E\n$(b)\nE\n", "b | a"},
		{"a <<'E'\n$(b)\nE\n", "a"},
		{"a > $(b)", "b | ?a"},
		{"time a | b", "a | b"},
		{"time", ""},

		{"sh -c 'a; b'", "a | b"},
		{"bash -euxc 'a' x y", "a"},
		{"/bin/sh -c a", "a"},
		{"sh", "sh"},
		{"sh -e /opt/x", "sh -e /opt/x"},
		{"sh -c", "?sh -c"},
		{`sh -c "$x"`, `?sh -c "$x"`},
		{`sh "$x"`, `?sh "$x"`},
		{"sh +x y", "?sh +x y"},
		{"sh -o pipefail -c a", "?sh -o pipefail -c a"},
		{"xargs sh", "?sh …"},
		{"eval a 'b;' c", "a b | c"},
		{`eval "$x"`, `?eval "$x"`},
		{"trap 'a; b' EXIT", "a | b"},
		{"trap -- a EXIT", "a"},
		{"trap - EXIT", ""},
		{"trap", ""},
		{"trap -p", "?trap -p"},
		{"trap $x EXIT", "?trap $x EXIT"},

		{"env", "env"},
		{"env -i - x=1 -u", "?-u"},
		{"env -u X --unset=Y a b", "a b"},
		{"env -u $x a", "?env -u $x a"},
		{"env x=$y a", "?env x=$y a"},
		{`env x="$y" a`, "a"},
		{"env -S a", "?env -S a"},
		{"xargs env", "?env …"},
		{"nohup nice -n 5 ionice -c 2 timeout -k 1 5 stdbuf -oL setsid chronic a b", "a b"},
		{"nice", "nice"},
		{"nice --adjustment=5 a", "a"},
		{"nice --adjustment 5 a", "a"},
		{"nice --adjust=5 a", "?nice --adjust=5 a"},
		{"nice -n", "?nice -n"},
		{"timeout a", "timeout a"},
		{"timeout", "?timeout"},
		{"timeout $x a", "?timeout $x a"},
		{"nohup -- a", "a"},
		{"command a", "a"},
		{"command -p -- a", "a"},
		{"command -v a", "command -v a"},
		{"builtin cd x", "cd x"},
		{"exec a", "a"},
		{"exec -a x y", "?exec -a x y"},
		{"exec 2>&1", "exec"},

		{"xargs", "?echo …"},
		{"xargs -0 -n 1 -P4 --max-lines=3 --null rm -f", "?rm -f …"},
		{"xargs -I {} mv {} x{}", "?mv {} x{} …"},
		{"xargs -I {} {} x", "?{} x …"},
		{"xargs -I a env a", "?env a …"},
		{"xargs -I '' a", "?xargs -I  a"},
		{"xargs -a f a", "?xargs -a f a"},
		{`xargs printf %d`, "?printf %d …"},
		{"xargs export", "?export …"},
		{"xargs eval", "?eval …"},
		{"xargs busybox", "?busybox …"},
		{"find . -name x", "find . -name x"},
		{"find . -exec a {} x ';' -ok b \\;", "find . -exec a {} x ; -ok b ; | ?a {} x | b"},
		{"find . -exec a -b {} +", "find . -exec a -b {} + | ?a -b …"},
		{"find /x/* ./y -exec a \\;", "?find /x/* ./y -exec a ; | a"},
		{"find * -exec a \\;", "?find * -exec a ; …"},
		{"find . -exec a", "?find . -exec a"},
		{"find . -exec \\;", "?find . -exec ;"},
		{"find . -exec a + b \\;", "?find . -exec a + b ;"},

		{"sudo -n -u root -- a b", "sudo -n -u root -- a b | a b"},
		{"sudo --user=root x=1 a", "sudo --user=root x=1 a | a"},
		{"sudo -k", "sudo -k"},
		{"sudo -i", "?sudo -i"},
		{"sudo -A a", "?sudo -A a"},
		{"sudo -u $x a", "?sudo -u $x a"},
		{"sudo x=$y a", "?sudo x=$y a"},
		{"doas -u root a", "doas -u root a | a"},
		{"doas", "?doas"},
		{"chroot /x a", "chroot /x a | a"},
		{"chroot /x", "?chroot /x"},
		{"su - root -c 'a; b'", "su - root -c a; b | a | b"},
		{"su --command=a", "su --command=a | a"},
		{"su -s /bin/sh -c a", "?su -s /bin/sh -c a"},
		{"su a b -c c", "?su a b -c c"},
		{"su $x -c a", "?su $x -c a"},
		{"su root", "?su root"},
		{"runuser -u x a", "runuser -u x a | a"},
		{"runuser -l x -c a", "runuser -l x -c a | a"},
		{"ssh -p 22 -o BatchMode=yes h -T a '; b'", "ssh -p 22 -o BatchMode=yes h -T a ; b | a | b"},
		{"ssh h", "?ssh h"},
		{"ssh $x a", "?ssh $x a"},
		{"ssh h a $x", "?ssh h a $x"},
		{"ssh -o ProxyCommand=a h b", "?ssh -o ProxyCommand=a h b"},
		{"watch -n 1 -d 'a; b' c", "a | b c"},
		{"watch $x", "?watch $x"},
		{"busybox sh -c a", "busybox sh -c a | a"},
		{"busybox", "busybox"},
		{"toybox --help", "?toybox --help"},
		{"strace -f a", "?strace -f a"},
		{"tini -- a", "?tini -- a"},
		{"systemd-cat a", "?systemd-cat a"},
		{"/usr/bin/hyperfine 'a'", "?/usr/bin/hyperfine a"},
		{"/lib64/ld-linux-x86-64.so.2 /bin/a", "?/lib64/ld-linux-x86-64.so.2 /bin/a"},
		{"../x/ld-2.31.so a", "?../x/ld-2.31.so a"},
		{"ld-prefix a", "ld-prefix a"},
		{"ip", "ip"},
		{"ip addr show $x", "?ip addr show $x"},
		{"ip netns", "ip netns"},
		{"ip -br netns list", "ip -br netns list"},
		{"ip netns exec a b", "?ip netns exec a b"},

		{"export x=1 y; a", "a"},
		{"export -p", "export -p"},
		{"export", "export"},
		{"export -n x", "?export -n x"},
		{"export $x", "?export $x"},
		{"export x=$y", "?export x=$y"},
		{"readonly x=1 > f", "readonly x=1"},
		{"unset -v x; unset y", ""},
		{"unset -f x", "?unset -f x"},
		{"read -r x y", "read -r x y"},
		{"read", "?read"},
		{"read -p x y", "?read -p x y"},
		{"[ -f x ]", "[ -f x ]"},
		{"[ ! -f x ]", "[ ! -f x ]"},
		{"[ x", "?[ x"},
		{"[ 1 -eq -2 ]", "[ 1 -eq -2 ]"},
		{"[ a -eq 1 ]", "?[ a -eq 1 ]"},
		{"[ a -a b ]", "?[ a -a b ]"},
		{"test $x", "?test $x"},
		{"/usr/bin/test a -eq 1", "/usr/bin/test a -eq 1"},
		{"printf '%5.2f%%\\n' 3", "printf %5.2f%%\\n 3"},
		{"printf %d x", "?printf %d x"},
		{"printf %", "printf %"},
		{"printf -v x y", "?printf -v x y"},
		{"exit 1; return; shift 2; wait", "exit 1 | return | shift 2 | wait"},
		{"exit x", "?exit x"},
		{"xargs shift", "?shift …"},
		{"ulimit -n 1024; ulimit -c unlimited", "ulimit -n 1024 | ulimit -c unlimited"},
		{"ulimit -n x", "?ulimit -n x"},
		{"alias a=b", "?alias a=b"},
		{"a() { b; }", "?a() { b; }"},
		{"> x", "?> x"},
		{"'a b'", "?a b"},
		{"-x", "?-x"},
		{"é", "!beyond ASCII"},
		{"'é'", "?é"},

		{"a '", "!POSIX shell"},
		{"a <(b)", "!POSIX shell"},
		{"[[ a ]]", "!read differently by different shells"},
		{"a &> b", "!POSIX shell"},
		{"a $'b'", "!$ in it"},
		{"a ${b:=c}", "!sets it"},
		{"a ${b:-'c'}", "!plain text in"},
		{"a ${b[1]}", "!POSIX shell"},
		{"a $b[1]", "!zsh reads differently"},
		{"a $((b))", "!more than numbers"},
		{"a 10>b", "!differently"},
		{"a >&b", "!redirects in a way"},
		{"a > /dev/tcp/x/1", "!network"},
		{"a <<a-b\na-b\n", "!here-document"},
		{"$(a <<E\nE\n)", "!here-document"},
		{"$(a # b\n)", "!comment"},
		{"$(case a in a) b;; esac)", "!case"},
		{"\"`a 'b'`\"", "!backquotes"},
		{"`a \\`b\\``", "!backquotes"},
		{"a\\\nb", "!continues a line"},
		{"a\x01", "!control"},
		{"a 'é\\'", "!character sets"},
		{"time x=1 a", "!differently"},
		{"{} a", "!keyword"},
		{"typeset x", "!keyword"},
		{"a " + strings.Repeat(">b ", 17), "!too much"},
		{strings.Repeat("a;", 1001), "!too many"},
		{"a " + strings.Repeat("$(b ", 17) + strings.Repeat(")", 17), "!too deeply"},
		{strings.Repeat("eval ", 20) + "a", "!too deeply"},
		{strings.Repeat("nice ", 20) + "a", "?" + strings.Repeat("nice ", 3) + "a"},
		{"ls " + strings.Repeat("x", 200_000), "!too long"},
	} {
		d := p.Decide(Request{Line: c.line})
		if d.Effect != Allow {
			t.Errorf("%q is %s", c.line, d.Effect)
		}
		if why, ok := strings.CutPrefix(c.want, "!"); ok {
			if d.Parsed || !strings.Contains(d.Why, why) || len(d.Commands) != 1 {
				t.Errorf("%.100q: %v because it %q, want %q", c.line, d.Parsed, d.Why, why)
			}
			continue
		}
		var found []string
		for _, j := range d.Commands {
			mark := ""
			if j.Unknown != "" {
				mark = "?"
			}
			found = append(found, mark+strings.Join(j.Words, " "))
		}
		if got := strings.Join(found, " | "); got != c.want {
			t.Errorf("%q:\n\tfound %s\n\twant  %s (%s)", c.line, got, c.want, d.Why)
		}
	}
}

// The variables that a line sets are told with every command.
func TestVariablesAreTold(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow})
	for text, want := range map[string][]string{
		"PATH=x ls":                    {"PATH"},
		"x=1 LANG=C LC_TIME=C ls":      nil,
		"http_proxy=x path=y _=z ls":   {"_", "http_proxy", "path"},
		"export B=1 A; ls":             {"A", "B"},
		"env C=1 ls; read D; unset E":  {"C", "D", "E"},
		"for IFS in x; do ls; done":    {"IFS"},
		"sh -c 'PS4=x ls'":             {"PS4"},
		"LINES=5 ls; env COLUMNS=7 ls": nil,
		"LINES=x ls":                   {"LINES"},
		"find . -exec env X=1 ls \\;":  {"X"},
	} {
		d := p.Decide(Request{Line: text})
		for _, j := range d.Commands {
			if !slices.Equal(j.Variables, want) {
				t.Errorf("%q: %s has %q, want %q", text, j.Words, j.Variables, want)
			}
		}
	}
}
