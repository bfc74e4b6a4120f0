package client

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// credentials gives what the last call to the peer carried.
func (p *peer) credentials() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.metadata.Get("authorization")
}

// bearerOf gives what one call carried.
func bearerOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("authorization"), ", ")
}

func TestWithToken(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{Token: "own"})
	for _, tt := range []struct {
		name string
		ctx  context.Context
		want []string
	}{
		{"own", t.Context(), []string{"Bearer own"}},
		{"the caller's", WithToken(t.Context(), "caller's"), []string{"Bearer caller's"}},
		{"the last one counts", WithToken(WithToken(t.Context(), "first"), "second"), []string{"Bearer second"}},
		{"none", WithToken(t.Context(), ""), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.GetServerInfo(tt.ctx); err != nil {
				t.Fatal(err)
			}
			if got := p.credentials(); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// Calls of many callers at once do not mix up their tokens.
func TestWithTokenOfManyAtOnce(t *testing.T) {
	p := newPeer(t)
	c := p.dial(t, Options{})
	p.stream = func(_ int, req *telexecv1.StreamOutputRequest, s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
		return s.Send(ended(&telexecv1.Command{Id: bearerOf(s.Context())}))
	}
	var wg sync.WaitGroup
	for _, name := range []Token{"ann", "bob", "eve", "joe"} {
		wg.Go(func() {
			ctx := WithToken(t.Context(), name)
			for range 20 {
				for event, err := range c.StreamOutput(ctx, &telexecv1.StreamOutputRequest{}) {
					if err != nil || event.GetEnded().GetId() != "Bearer "+string(name) {
						t.Errorf("%s got %v, %v", string(name), event, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestWithTokenIsKept(t *testing.T) {
	t.Run("by a call that is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c := p.dial(t, Options{Token: "own"})
			var seen []string
			p.before = func(_ string, n int, _ proto.Message) error {
				seen = append(seen, p.credentials()...)
				if n < 3 {
					return dropped
				}
				return nil
			}
			if _, err := c.GetServerInfo(WithToken(t.Context(), "caller's")); err != nil {
				t.Fatal(err)
			}
			if want := slices.Repeat([]string{"Bearer caller's"}, 3); !slices.Equal(seen, want) {
				t.Errorf("%q", seen)
			}
			c.Close()
			p.server.Stop()
		})
	})
	t.Run("by a stream that resumes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c := p.dial(t, Options{Token: "own"})
			var seen []string
			p.stream = func(n int, _ *telexecv1.StreamOutputRequest, s grpc.ServerStreamingServer[telexecv1.StreamOutputResponse]) error {
				seen = append(seen, bearerOf(s.Context()))
				if n < 3 {
					return dropped
				}
				return s.Send(ended(p.command(2, telexecv1.CommandState_COMMAND_STATE_COMPLETED)))
			}
			for _, err := range c.StreamOutput(WithToken(t.Context(), "caller's"), &telexecv1.StreamOutputRequest{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if want := slices.Repeat([]string{"Bearer caller's"}, 3); !slices.Equal(seen, want) {
				t.Errorf("%q", seen)
			}
			c.Close()
			p.server.Stop()
		})
	})
}

func TestFindToken(t *testing.T) {
	home := t.TempDir()
	state := filepath.Join(home, ".local", "state")
	if err := os.MkdirAll(filepath.Join(state, "telexec"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "telexec", "admin.token"), []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		server string
		env    map[string]string
		want   Token
	}{
		{"none", "", map[string]string{"HOME": filepath.Join(home, "nobody")}, ""},
		{"of this user's service", "", map[string]string{"HOME": home}, "from-file"},
		{"with an address of this machine", "http://localhost:7070", map[string]string{"HOME": home}, "from-file"},
		{"with XDG_STATE_HOME", "", map[string]string{"XDG_STATE_HOME": state}, "from-file"},
		{"environment", "", map[string]string{"HOME": home, "TELEXEC_TOKEN": "from-env"}, "from-env"},
		{"another machine", "https://example.com", map[string]string{"HOME": home}, ""},
		{"another machine, environment", "https://example.com", map[string]string{"TELEXEC_TOKEN": "from-env"}, "from-env"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := FindToken(tt.server, func(name string) string { return tt.env[name] })
			if got != tt.want || err != nil {
				t.Errorf("got %q, %v", string(got), err)
			}
		})
	}
}

// A file that cannot be read is told, for it explains why there is no token.
func TestFindTokenThatCannotBeRead(t *testing.T) {
	state := t.TempDir()
	if err := os.MkdirAll(filepath.Join(state, "telexec", "admin.token"), 0o700); err != nil { // no file: root cannot read it either
		t.Fatal(err)
	}
	token, err := FindToken("", func(name string) string { return map[string]string{"XDG_STATE_HOME": state}[name] })
	if token != "" || err == nil || !strings.Contains(err.Error(), "admin.token") {
		t.Errorf("%q, %v", string(token), err)
	}
}
