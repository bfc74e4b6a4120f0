package mcpcheck

import (
	"encoding/json"
	"fmt"
	"testing"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

// fixtures are the tools and resources that the suite's scenarios ask for, and
// what we have in their place. Those that are not in here we have nothing for;
// see testdata.
type fixtures struct {
	tools     map[string]func(arguments map[string]any) call
	resources map[string]string // uri → uri
}

// call is a call of one of our tools.
type call struct {
	tool      string
	arguments map[string]any
}

// newFixtures makes the table, and the commands that its resources are of.
func newFixtures(t *testing.T, env *testenv.Env) fixtures {
	t.Helper()
	run := func(arguments map[string]any) call {
		arguments["host"] = env.Host
		return call{"execute_command", arguments}
	}
	// Where the client can follow tasks, a command that is not waited for is a task.
	task := func(arguments map[string]any) call {
		arguments["wait_seconds"] = 0
		return run(arguments)
	}
	stdout := func(command string) string {
		return fmt.Sprintf("telexec://commands/%s/stdout", start(t, env, &telexecv1.ExecuteRequest{Command: command, Wait: wait}))
	}
	return fixtures{
		tools: map[string]func(map[string]any) call{
			"greet": func(a map[string]any) call {
				return run(map[string]any{"command": `printf 'Hello, %s!' "$NAME"`, "env": map[string]any{"NAME": a["name"]}})
			},
			"slow_compute": func(a map[string]any) call {
				return task(map[string]any{"command": fmt.Sprintf("sleep %v; echo %q", a["seconds"], a["label"])})
			},
			// It cannot start, which is told as an error of the tool.
			"failing_job": func(map[string]any) call {
				return task(map[string]any{"command": "true", "cwd": "/nowhere"})
			},
			// Nothing of ours asks the client anything. The scenarios about that are
			// listed as missing; this is for those that only want one more task.
			"confirm_delete": func(map[string]any) call {
				return task(map[string]any{"command": "true"})
			},
			"test_simple_text": func(map[string]any) call {
				return run(map[string]any{"command": "echo simple text"})
			},
			"test_error_handling": func(map[string]any) call {
				return run(map[string]any{"command": "true", "cwd": "/nowhere"})
			},
			"test_tool_with_progress": func(map[string]any) call {
				return run(map[string]any{"command": "for p in 0 25 50 75 100; do echo $p%; sleep 1; done"})
			},
		},
		resources: map[string]string{
			"test://static-text":       stdout("echo static text"),
			"test://template/123/data": stdout("echo 123"),
		},
	}
}

// replace changes the parameters of a request where they name a fixture, and
// gives the name before and after.
func (f fixtures) replace(method string, params map[string]json.RawMessage) (was, is string) {
	switch method {
	case "tools/call":
		was = text(params["name"])
		fixture, ok := f.tools[was]
		if !ok {
			return was, was
		}
		var arguments map[string]any
		_ = json.Unmarshal(params["arguments"], &arguments) // none is as good as an empty one
		c := fixture(arguments)
		params["name"], params["arguments"] = raw(c.tool), raw(c.arguments)
		return was, c.tool
	case "resources/read":
		was = text(params["uri"])
		is, ok := f.resources[was]
		if !ok {
			return was, was
		}
		params["uri"] = raw(is)
		return was, is
	}
	return "", ""
}
