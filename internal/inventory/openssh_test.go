package inventory_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/test/testenv"
)

// TestAsOpenSSH reads each file with the real ssh and with this package, and
// wants the same. DIR in a file is a directory that holds the other files.
func TestAsOpenSSH(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		testenv.Missing(t, "no ssh; tools/setup.sh gets it")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config  string
		hosts   []string
		include map[string]string
	}{
		"plain": {config: `
			Host web1
				HostName web1.example.com
				User deploy
				Port 2222
				IdentityFile ~/.ssh/a
				IdentityFile /b
				IdentityFile ~/.ssh/a
				IdentitiesOnly yes
				CertificateFile /c
				CertificateFile /d
				IdentityAgent /run/agent
				HostKeyAlias alias
				UserKnownHostsFile /k1 ~/k2
				GlobalKnownHostsFile /g1 /g2
				StrictHostKeyChecking accept-new
				ConnectTimeout 7
				ServerAliveInterval 1m5
				ServerAliveCountMax 9
			Host Bare
			Host bare
		`, hosts: []string{"web1", "Bare", "bare"}},
		"the first value counts": {config: `
			Host a
				Port 1
				Port 2
				UserKnownHostsFile /1
				UserKnownHostsFile /2
				StrictHostKeyChecking no
				StrictHostKeyChecking yes
			Host a*
				Port 3
				User x
				IdentityFile /also
			Host *
				User y
				ConnectTimeout none
				ServerAliveInterval 0
		`, hosts: []string{"a", "a"}},
		"before any block": {config: "Port 77\nHost a b\nPort 78\n", hosts: []string{"a", "b"}},
		"patterns": {config: `
			Host web1 web22 db.ex.com "quo ted" bastion
			Host web?
				Port 1
			Host *.ex.com !bastion
				Port 2
			Host * !bastion !web*
				Port 3
			Host w*2
				User two
			Host *a*t*o*
				User star
		`, hosts: []string{"web1", "web22", "db.ex.com", "bastion"}},
		"how lines are written": {config: "\ufeffnonsense x\r\n" +
			"hOST=a\tb \"c\"\r\n  PORT = 77   \r\n\tUser\t=\tx # comment\n" +
			"IdentityFile \"/my key#1\" # comment\nIdentityFile /key#2\nIdentityFile '/it'\\''s'\nIdentityFile /a\\ b\n" +
			"  # Port 1\nHostKeyAlias \"al\"ias\nUserKnownHostsFile \"/a b\" /c #/d\n",
			hosts: []string{"a", "b", "c"}},
		"yes and no": {config: `
			Host y
				IdentitiesOnly TRUE
				StrictHostKeyChecking ask
			Host n
				IdentitiesOnly false
				StrictHostKeyChecking OFF
			Host n2
				StrictHostKeyChecking true
				Port ssh
				IdentityAgent none
				ServerAliveInterval 1W
				ConnectTimeout 1h30M2
		`, hosts: []string{"y", "n", "n2"}},
		"HostName": {config: `
			Host a B
				HostName %h.EX.com
			Host pc
				HostName 100%%
			Host v6
				HostName 2001:DB8::1
		`, hosts: []string{"a", "B", "pc", "v6"}},
		"ProxyJump": {config: `
			Host one
				ProxyJump u@x:2222,y
			Host off
				ProxyJump none
			Host cmd
				ProxyCommand none
				ProxyJump z
			Host first
				ProxyJump z
				ProxyCommand nc "" %h # x
			Host uri
				ProxyJump ssh://u@x:2222
			Host two
				ProxyJump [::1]:2222
			Host *
				ProxyJump none
		`, hosts: []string{"one", "off", "cmd", "first", "uri", "two"}},
		"Match": {config: `
			Host web1 web2 db1 other
				HostName %h.ex.com
			Match host web1.*,DB*
				Port 1
			Match host *.ex.com,!web2.*
				ServerAliveCountMax 4
			Match originalhost web1,web2
				ConnectTimeout 5
			Match !originalhost web1
				ConnectTimeout 6
			Match user nobody
				Port 2
			Match host other*
				User ops
			Match user ops,admin host=other.ex.com # comment
				Port 3
			Match localuser ` + me.Username + `
				HostKeyAlias mine
			Match localuser !` + me.Username + `
				Port 4
			Match all
				User last
			Match "host" "web1"
				Port 5
			Match originalhost db1 all
				ServerAliveInterval 7
		`, hosts: []string{"web1", "web2", "db1", "other"}},
		"Match final": {config: `
			Host a b
			Match final host a.ex.com
				Port 1
			Match canonical originalhost b
				Port 2
			Match !final
				User first
			Match final all
				ServerAliveInterval 3
			Host *
				HostName %h.ex.com
				IdentityFile /k
		`, hosts: []string{"a", "b"}},
		"Include": {config: `
			Include DIR/*.conf DIR/nothing
			Host a b
				Port 9
				User main
			Host a
				Include DIR/inner
				ServerAliveCountMax 8
			Include DIR/last
		`, hosts: []string{"a", "b", "c"}, include: map[string]string{
			"1.conf": "Host c\nPort 1\nInclude DIR/deep\n",
			"2.conf": "ConnectTimeout 2\nHost a\nUser two\n",
			"deep":   "ServerAliveInterval 5\nHost *\nHostKeyAlias deep\n",
			"inner":  "ServerAliveInterval 6\nHost b\nUser never\nHost a\nIdentityFile /inner\nMatch all\nIdentityFile /inner2\n",
			"last":   "User last\nHost *\nUser verylast\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(name, text string) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			for name, text := range c.include {
				put(name, text)
			}
			file := put("config", "IgnoreUnknown nonsense,\ufeffnonsense\n"+c.config)
			inv, err := inventory.Open(inventory.Options{
				SSHConfig: file, Home: me.HomeDir, User: me.Username,
				SSH: config.SSH{KeepaliveMax: 3, Agent: "default"},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, host := range c.hosts {
				h, err := inv.Lookup(host)
				if err != nil {
					t.Errorf("%s: %v", host, err)
					continue
				}
				want := sshG(t, ssh, file, host, me.HomeDir)
				if got := facts(h); !reflect.DeepEqual(got, want) {
					for k := range want {
						if !slices.Equal(got[k], want[k]) {
							t.Errorf("%s: %s is %q, ssh says %q", host, k, got[k], want[k])
						}
					}
				}
			}
		})
	}
}

// facts says what is in a Host with ssh's words.
func facts(h inventory.Host) map[string][]string {
	host, port, _ := net.SplitHostPort(h.Address)
	f := map[string][]string{
		"hostname": {host}, "port": {port}, "user": {h.User},
		"identitiesonly":      {map[bool]string{true: "yes", false: "no"}[h.IdentitiesOnly]},
		"identityfile":        h.IdentityFiles,
		"certificatefile":     h.CertificateFiles,
		"knownhosts":          h.KnownHostsFiles,
		"identityagent":       {h.Agent},
		"hostkeyalias":        {h.HostKeyAlias},
		"policy":              {string(h.HostKeyPolicy)},
		"connecttimeout":      {seconds(h.ConnectTimeout)},
		"serveraliveinterval": {seconds(h.KeepaliveInterval)},
		"serveralivecountmax": {strconv.Itoa(h.KeepaliveMax)},
		"proxyjump":           nil,
	}
	for _, hop := range h.Via {
		f["proxyjump"] = append(f["proxyjump"], hop.Name)
	}
	return f
}

func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }

// sshG asks the real ssh.
func sshG(t *testing.T, ssh, file, host, home string) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, host).Output()
	if err != nil {
		t.Fatalf("ssh -G %s: %v", host, err)
	}
	said := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(value, "~/") {
			value = home + value[1:]
		}
		said[key] = append(said[key], value)
	}
	want := make(map[string][]string)
	for _, key := range []string{"hostname", "port", "user", "identitiesonly", "identityfile", "certificatefile",
		"identityagent", "hostkeyalias", "connecttimeout", "serveraliveinterval", "serveralivecountmax", "proxyjump"} {
		want[key] = said[key]
	}
	if len(want["identityfile"]) > 5 { // the defaults of ssh, which have a test of their own
		want["identityfile"] = nil
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			if path := filepath.Join(home, ".ssh", name); exists(path) {
				want["identityfile"] = append(want["identityfile"], path)
			}
		}
	}
	switch agent := want["identityagent"]; {
	case agent == nil:
		want["identityagent"] = []string{"default"}
	case agent[0] == "none":
		want["identityagent"] = []string{""}
	}
	if want["hostkeyalias"] == nil {
		want["hostkeyalias"] = []string{""}
	}
	if want["connecttimeout"][0] == "none" {
		want["connecttimeout"] = []string{"0"}
	}
	if jump := want["proxyjump"]; jump != nil {
		want["proxyjump"] = strings.Split(strings.ReplaceAll(jump[0], "ssh://", ""), ",")
	}
	want["policy"] = []string{map[string]string{
		"true": "strict", "yes": "strict", "ask": "strict", "accept-new": "accept-new", "false": "accept-new",
	}[said["stricthostkeychecking"][0]]}
	// ssh joins these with blanks, also where they hold some.
	known := strings.ReplaceAll(said["userknownhostsfile"][0]+" "+said["globalknownhostsfile"][0], "/a b", "/a_b")
	for _, path := range strings.Fields(known) {
		if strings.HasPrefix(path, "~/") {
			path = home + path[1:]
		}
		want["knownhosts"] = append(want["knownhosts"], strings.ReplaceAll(path, "/a_b", "/a b"))
	}
	return want
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestRefusedAsOpenSSH holds lines that ssh refuses, and wants them refused with
// the file and the line.
func TestRefusedAsOpenSSH(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		testenv.Missing(t, "no ssh; tools/setup.sh gets it")
	}
	for _, line := range []string{
		"Port", "Port x", "Port 0", "Port 65536", "Port 1 2", "User", `User ""`, "User a b", `HostName "x`, "HostName 'x",
		"IdentitiesOnly maybe", "StrictHostKeyChecking sometimes", "ConnectTimeout soon", "ConnectTimeout 1y", "ServerAliveInterval -1",
		"ServerAliveInterval 99999999999", "ServerAliveInterval 9999w9999w",
		"ServerAliveCountMax x", "ProxyJump a,,b", "ProxyJump a:x", "IdentityFile", "UserKnownHostsFile none /x", "Host", `Host ""`,
		"Match", "Match host", "Match host #", "Match all host x", "Match host x user y all", `Match host "x`, `Match "host x`,
		"Include DIR/self", "Include DIR/bad",
	} {
		t.Run(line, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"config": "# a comment\n" + line + "\nHost a\n",
				"self":   "Include DIR/self\n",
				"bad":    "\n\nPort x\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(dir, "config")
			if out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, "a").CombinedOutput(); err == nil {
				t.Errorf("ssh takes it: %.200s", out)
			}
			at := file + ":2: "
			switch line {
			case "Include DIR/self":
				at = filepath.Join(dir, "self") + ":1: "
			case "Include DIR/bad":
				at = filepath.Join(dir, "bad") + ":3: "
			}
			wantBadSSHConfig(t, inventory.Options{SSHConfig: file, Home: dir}, at)
		})
	}
}
