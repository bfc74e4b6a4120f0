package main

import (
	"os"
	"slices"
	"strings"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// secrets adds to the request which values are to be masked in the output. They
// come from the environment and from a file, never from the command line, which
// everybody on this machine can read.
func (c *runCmd) secrets(env Env, req *telexecv1.ExecuteRequest) error {
	for _, name := range c.SecretEnv {
		if strings.Contains(name, "=") {
			name, _, _ = strings.Cut(name, "=")
			return failure("--secret-env takes the name of a variable alone: others on this machine can see arguments").
				withHint("Set %s in the environment of telexec and give --secret-env %[1]s", name)
		}
		if _, given := req.GetEnv()[name]; !given {
			req.Env[name] = env.Getenv(name)
		}
		if req.GetEnv()[name] == "" {
			return failure("--secret-env %s: the variable is empty or not set here, so that there is nothing to mask", name)
		}
		if !slices.Contains(req.GetSecretEnv(), name) {
			req.SecretEnv = append(req.SecretEnv, name)
		}
	}
	if c.RedactFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.RedactFile)
	if err != nil {
		return failure("cannot read the values to mask: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if line = withoutLineEnd(line); line != "" {
			req.Redact = append(req.Redact, line)
		}
	}
	if len(req.GetRedact()) == 0 {
		return failure("%s holds no value to mask", c.RedactFile).withHint("Give one value per line")
	}
	return nil
}
