package policy_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/test/testenv"
)

// The oracle: what Decide allows is run by real shells in a place where the
// allowed programs do nothing and every other one leaves a trace. There a line
// that was read wrongly betrays itself, whatever we thought of its grammar.
//
//	go test ./internal/policy -run Oracle -mutants 20000
//	go test ./internal/policy -fuzz FuzzShells
//
// As root the place is a chroot, entered as nobody, so that programs named by
// their path are noticed too. Otherwise it is a PATH.

var (
	mutants     = flag.Int("mutants", 100, "how many mutated lines TestOracleMutants runs in every shell")
	mutantsSeed = flag.Uint64("mutants.seed", 1, "what TestOracleMutants begins with; 0 is another one each time")
)

// oracle is a place to run lines in.
type oracle struct {
	dir    string
	caged  bool
	shells [][]string
}

var shellCommands = [][]string{{"dash"}, {"bash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"zsh"}, {"mksh"}, {"ksh"}, {"yash"}}

// throughPrograms are the real ones, since they are seen through.
var throughPrograms = []string{"env", "find", "xargs", "timeout", "nice", "ionice", "nohup", "stdbuf", "setsid", "ksh", "rbash"}

// canaries are programs that nobody allowed.
var canaries = strings.Fields("id rm touch whoami tee cp mv dd chmod kill ln mkfifo sleep perl python3 awk sed less vi git tar cd_ x y z a b f ls2 i d l s")

var (
	theOracle = sync.OnceValues(newOracle)
	oracleDir string // to be removed in the end
)

func newOracle() (*oracle, error) {
	dir, err := os.MkdirTemp("", "policy")
	if err != nil {
		return nil, err
	}
	oracleDir = dir
	o := &oracle{dir: dir, caged: os.Geteuid() == 0}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, d := range []string{"bin", "usr/bin", "tmp", "dev", "etc", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil { // some shells keep here-documents there
		return nil, err
	}
	write := func(name, text string, mode os.FileMode) {
		if err == nil {
			if err = os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err == nil {
				err = os.Chmod(filepath.Join(dir, name), mode)
			}
		}
	}
	log := "/trace"
	if !o.caged {
		log = filepath.Join(dir, "trace")
	}
	write("trace", "", 0o666)
	write("etc/hosts", "127.0.0.1 localhost\n", 0o644)
	for _, name := range canaries {
		text := "#!/bin/sh\necho \"$0\" >>" + log + "\n"
		write("bin/"+name, text, 0o755)
		write("usr/bin/"+name, text, 0o755)
		write("tmp/"+name, text, 0o755)
	}
	for _, name := range append([]string{"apt"}, lookPrograms...) {
		if !slices.Contains(throughPrograms, name) {
			// A loop that waits for one to fail ends.
			text := "#!/bin/sh\ncase \"$*\" in *x*) exit 1; esac\nexit 0\n"
			write("bin/"+name, text, 0o755)
			write("usr/bin/"+name, text, 0o755)
			write("tmp/"+name, "#!/bin/sh\necho \"$0\" >>"+log+"\n", 0o755)
		}
	}
	// For shells in which these are programs, or no program of that name is there.
	write("bin/time", "#!/bin/sh\n[ \"$1\" = -p ] && shift\nexec \"$@\"\n", 0o755)
	write("bin/watch", "#!/bin/sh\nwhile case $1 in -n) shift;; -*) ;; *) false;; esac; do shift; done\nexec sh -c \"$*\"\n", 0o755)
	write("bin/builtin", "#!/bin/sh\n", 0o755)
	if err != nil {
		return nil, err
	}
	programs := slices.Clone(throughPrograms)
	for _, s := range shellCommands {
		if _, err := exec.LookPath(s[0]); err == nil {
			if runsItsOwn(s) {
				continue // what it runs leaves no trace
			}
			o.shells = append(o.shells, s)
			programs = append(programs, s[0])
		}
	}
	for _, name := range append(programs, "sh") {
		if err := o.bring(name); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink("sh", filepath.Join(dir, "bin/ash")); err != nil {
		return nil, err
	}
	if o.caged {
		err = syscall.Mknod(filepath.Join(dir, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3)
		if err == nil {
			err = os.Chmod(filepath.Join(dir, "dev/null"), 0o666)
		}
	}
	return o, err
}

// runsItsOwn reports whether a shell has programs of its own, which it prefers to those
// in the PATH, as BusyBox is built in some distributions.
func runsItsOwn(shell []string) bool {
	cmd := exec.Command(shell[0], append(slices.Clone(shell[1:]), "-c", "id -u")...)
	if path, err := exec.LookPath(shell[0]); err == nil {
		cmd.Path = path
	}
	cmd.Env = []string{"PATH=/nonexistent"}
	return cmd.Run() == nil
}

var library = regexp.MustCompile(`/\S+\.so\S*`)

// bring puts a program of this machine into the place, with its libraries.
func (o *oracle) bring(name string) error {
	from, err := exec.LookPath(name)
	if err != nil {
		return nil //nolint:nilerr // what is not installed is not there
	}
	if !o.caged {
		return os.Symlink(from, filepath.Join(o.dir, "bin", name))
	}
	libraries, _ := exec.Command("ldd", from).Output() // none of a static program
	for _, lib := range library.FindAllString(string(libraries), -1) {
		if err := copyFile(lib, filepath.Join(o.dir, lib)); err != nil {
			return err
		}
	}
	if err := copyFile(from, filepath.Join(o.dir, "bin", name)); err != nil {
		return err
	}
	return copyFile(from, filepath.Join(o.dir, "usr/bin", name))
}

func copyFile(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// hostile is what variables and the input hold: whatever evaluates them runs id.
const hostile = "a[$(id)0]"

// missing is what shells say of a program that is not there.
var missing = regexp.MustCompile(`(?i)not found: |: not found|command not found|inaccessible|no such command|permission denied|cannot create|can't create`)

// harmlessWords are of shells in which time takes no -p, and builtin no program.
var harmlessWords = regexp.MustCompile(`command not found: -p|builtin: [^:]*: not found|cannot set niceness`)

// run runs a line in a shell and tells what it ran that it should not have.
func (o *oracle) run(ctx context.Context, shell []string, line string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := os.Truncate(filepath.Join(o.dir, "trace"), 0); err != nil {
		return "", err
	}
	name, cwd := "/bin/"+shell[0], "/home"
	path := "/bin"
	if !o.caged {
		name, cwd, path = filepath.Join(o.dir, name), filepath.Join(o.dir, cwd), filepath.Join(o.dir, path)
	}
	cmd := exec.CommandContext(ctx, name, append(slices.Clone(shell[1:]), "-c", line)...)
	cmd.Dir = cwd
	cmd.Env = []string{"PATH=" + path, "HOME=/tmp", "x=" + hostile, "y=" + hostile, "f=*(e:id:)", "USER=$(id)", "z=`id`"}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = strings.NewReader(strings.Repeat(hostile+"\n", 3))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // some lines are loops without end
	if o.caged {
		cmd.SysProcAttr.Chroot = o.dir
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process == nil {
		return "", err
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left in the background
	trace, err := os.ReadFile(filepath.Join(o.dir, "trace"))
	if err != nil {
		return "", err
	}
	if len(trace) > 0 {
		return "ran " + strings.Join(strings.Fields(string(trace)), ", "), nil
	}
	if made := o.made(); len(made) > 0 {
		return "made " + strings.Join(made, ", "), nil
	}
	if missing.MatchString(harmlessWords.ReplaceAllString(stderr.String(), "")) {
		return "said " + strings.TrimSpace(stderr.String()), nil
	}
	return "", nil
}

// made gives the files that were made where that can be, and removes them.
func (o *oracle) made() []string {
	var made []string
	entries, _ := os.ReadDir(filepath.Join(o.dir, "tmp"))
	for _, e := range entries {
		if !slices.Contains(canaries, e.Name()) && !slices.Contains(lookPrograms, e.Name()) && e.Name() != "apt" {
			made = append(made, e.Name())
			_ = os.RemoveAll(filepath.Join(o.dir, "tmp", e.Name()))
		}
	}
	return made
}

// check runs a line that is allowed in every shell.
func (o *oracle) check(t testing.TB, line string) {
	t.Helper()
	for _, shell := range o.shells {
		ran, err := o.run(t.Context(), shell, line)
		if err != nil {
			t.Fatalf("%v: %q: %v", shell, line, err)
		}
		if ran != "" {
			t.Errorf("%q is allowed, and %v %s", line, shell, ran)
		}
	}
}

func oracleFor(t testing.TB) *oracle {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	o, err := theOracle()
	if err != nil {
		testenv.Missing(t, "no place to run commands in: "+err.Error())
	}
	if len(o.shells) == 0 {
		testenv.Missing(t, "no shell is installed")
	}
	return o
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if oracleDir != "" {
		_ = os.RemoveAll(oracleDir)
	}
	os.Exit(code)
}

// Without some of the shells the others are asked alone.
func TestOracleAsksEveryShell(t *testing.T) {
	for _, shell := range shellCommands {
		if _, err := exec.LookPath(shell[0]); err != nil {
			testenv.Missing(t, "no "+shell[0]+"; tools/setup.sh gets it")
		}
	}
}

// The oracle must see what a wrong answer would be.
func TestOracleSees(t *testing.T) {
	o := oracleFor(t)
	lines := []string{"id", "ls; id", "echo $(id)", "l's' && id", "x=id; $x", "nosuchprogram", "eval id", "/tmp/ls", "sh -c id", "echo x >/trace2", "echo x >/tmp/new"}
	if o.caged {
		lines = append(lines, "/usr/bin/id", "../bin/id", "/???/id")
	}
	for _, shell := range o.shells {
		for _, line := range lines {
			if line == "/tmp/ls" && !o.caged || shell[0] == "zsh" && line == "/???/id" {
				continue
			}
			if ran, err := o.run(t.Context(), shell, line); err != nil || ran == "" {
				t.Errorf("%v: %q left no trace (%v)", shell, line, err)
			}
		}
	}
	if ran, err := o.run(t.Context(), []string{"bash"}, "echo $((x))"); err != nil || !strings.Contains(ran, "id") {
		t.Errorf("a variable's value that is evaluated left no trace: %q, %v", ran, err)
	}
}

// Variables of the request's env that pass without being listed are inherited by
// the shell, and none evaluates them, whatever they hold.
func TestOracleInherits(t *testing.T) {
	o := oracleFor(t)
	names := []string{"LANG", "LC_ALL", "LC_TIME", "TZ", "TERM", "NO_COLOR", "REPLY", "CI", "anything"}
	if d := lookers(t).Decide(policy.Request{Line: "ls", EnvNames: names}); d.Effect != policy.Allow {
		t.Fatal(d.Reason)
	}
	for _, shell := range o.shells {
		for _, name := range names {
			for _, value := range []string{hostile, "$(id)", "`id`", "/tmp/id", "*(e:id:)"} {
				line := "ls; echo \"$" + name + "\" $" + name
				if ran, err := o.run(t.Context(), shell, line, name+"="+value); err != nil || ran != "" {
					t.Errorf("%v with %s=%s %s (%v)", shell, name, value, ran, err)
				}
			}
		}
	}
}

func TestOracleHonest(t *testing.T) {
	o := oracleFor(t)
	for _, line := range corpus(t, "honest.txt") {
		o.check(t, line)
	}
}

// TestOracleMutants changes the lines of both corpora at random and runs what
// is allowed of that: always the same ones, unless told otherwise.
func TestOracleMutants(t *testing.T) {
	o := oracleFor(t)
	p := lookers(t)
	seed := *mutantsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 0))
	seeds := append(corpus(t, "honest.txt"), corpus(t, "slip.txt")...)
	seen := map[string]bool{}
	tried := 0
	for len(seen) < *mutants {
		line := mutate(r, seeds)
		if tried++; tried > 1000**mutants {
			t.Fatalf("of %d lines only %d are allowed", tried, len(seen))
		}
		if seen[line] || p.Decide(policy.Request{Line: line}).Effect != policy.Allow {
			continue
		}
		seen[line] = true
		o.check(t, line)
	}
	t.Logf("seed %d: %d of %d lines were allowed and run in %d shells", seed, len(seen), tried, len(o.shells))
}

// tokens are what mutants are made of.
var tokens = append(strings.Fields(`; & && || | ! ( ) { } < > >> << <<- <<< >& <& <> >| &> |& $ $( ) ${ } $(( )) (( )) [[ ]] [ ] ' " `+"` \\` \\ "+`
	\' \" \$ $' $" \\ # * ? ~ = += x= x=$( if then else elif fi for in do done while until case esac ;; function time select coproc eval exec command builtin . source
	trap set alias id ls echo cat date $x ${x} ${x:- "$x" $@ $* $# $? $$ $- $! $0 $1 EOF -c -e sh bash env xargs find -exec {} + -n -eq test printf %d %s read export unset
	/dev/null /tmp/x 1 2 0 2>&1 -I x y f i d IFS= PATH= LANG=C nice timeout nohup zsh @ % ^ , : - -- => =id =( <( >( @( !( +( *( (e:id:) {a,b} {id,ls} é`),
	"\n", "\t", " ", "  ", "\\\n", " \\\n", "<<EOF\n", "\nEOF\n", "'\n", ";\n", "$'\\''", "$(id)", "`id`", "${x:-`id`}", "$((x))", "; id", "\nid\n", "' id '", "\" id \"", "#\nid")

func mutate(r *rand.Rand, seeds []string) string {
	line := seeds[r.IntN(len(seeds))]
	for range 1 + r.IntN(3) {
		at := r.IntN(len(line) + 1)
		switch r.IntN(7) {
		case 0, 1, 2:
			line = line[:at] + tokens[r.IntN(len(tokens))] + line[at:]
		case 3:
			line = line[:at] + " " + tokens[r.IntN(len(tokens))] + " " + line[at:]
		case 4: // cut
			end := min(len(line), at+1+r.IntN(4))
			line = line[:at] + line[end:]
		case 5: // splice
			other := seeds[r.IntN(len(seeds))]
			line = line[:at] + other[r.IntN(len(other)+1):]
		case 6: // repeat
			end := min(len(line), at+r.IntN(8))
			line = line[:end] + line[at:]
		}
	}
	return line
}

// FuzzShells lets the fuzzer look for a line that is allowed and yet runs
// something else.
func FuzzShells(f *testing.F) {
	if flag.Lookup("test.fuzz").Value.String() != "" { // TestOracleHonest has run them otherwise
		for _, name := range []string{"honest.txt", "slip.txt"} {
			for _, line := range corpus(f, name) {
				f.Add(line)
			}
		}
	}
	p := lookers(f)
	f.Fuzz(func(t *testing.T, line string) {
		if len(line) > 2000 || strings.ContainsRune(line, 0) || p.Decide(policy.Request{Line: line}).Effect != policy.Allow {
			return
		}
		oracleFor(t).check(t, line)
	})
}

// FuzzDecide looks for a panic, an answer that changes, and one that is not
// whole.
func FuzzDecide(f *testing.F) {
	for _, name := range []string{"honest.txt", "slip.txt"} {
		for _, line := range corpus(f, name) {
			f.Add(line, false)
		}
	}
	p := lookers(f)
	// Paths are followed for rules that restrict only.
	wary := newPolicy(f, policy.Rules{Default: policy.Allow, Rules: []policy.Rule{
		{Name: "args", Effect: policy.Deny, Match: policy.Match{Args: []string{"/etc/*", "of=/srv/?", "*/x"}}},
		{Name: "writes", Effect: policy.RequireApproval, Match: policy.Match{Writes: []string{"/tmp/**", "**/x"}}},
		{Name: "programs", Effect: policy.Deny, Match: policy.Match{Programs: []string{"id", "/srv/*"}}},
		{Name: "commands", Effect: policy.Deny, Match: policy.Match{Commands: []string{"ls /x/* *"}}},
	}})
	f.Fuzz(func(t *testing.T, line string, login bool) {
		q := policy.Request{Line: line, LoginShell: login}
		d := p.Decide(q)
		if again := p.Decide(q); fmt.Sprint(d) != fmt.Sprint(again) {
			t.Errorf("%q: %v, then %v", line, d, again)
		}
		if d := wary.Decide(q); fmt.Sprint(d) != fmt.Sprint(wary.Decide(q)) || d.Reason == "" || len(d.Commands) == 0 {
			t.Errorf("%q: %+v", line, d)
		}
		if d.Reason == "" || len(d.Commands) == 0 || d.Rule == "" || d.Parsed == (d.Why != "") {
			t.Errorf("%q: an answer with holes: %+v", line, d)
		}
		for _, c := range d.Commands {
			if d.Effect == policy.Allow && c.Effect != policy.Allow || c.Effect == policy.Allow && strings.Contains(c.Unknown, "program") {
				t.Errorf("%q is %s with %+v", line, d.Effect, c)
			}
		}
		if policy.Narrower(q, q) && d.Parsed && slices.ContainsFunc(d.Commands, func(c policy.Judged) bool { return c.Unknown != "" }) {
			t.Errorf("%q is narrower than itself, with unknown commands", line)
		}
	})
}
