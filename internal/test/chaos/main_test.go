package chaos

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// actorName is the first argument that makes the test binary an actor: the
// harness copies itself to the host and plays its scripts there.
const actorName = "chaos-actor"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == actorName {
		code, err := Play(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, actorName+":", err)
		}
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}
