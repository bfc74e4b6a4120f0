package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// An agent is what a model's program is to telexec-mcp: it starts the real one as
// a process and speaks MCP over its standard input and output. It is not the
// SDK's client, for two reasons: it sees what is on the wire, and it speaks what
// that client does not (Tasks, a request that is given up but not forgotten).
// It is used by one goroutine.
type agent struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	pipe     *os.File // under out, for its deadline
	out      *bufio.Reader
	log      bytes.Buffer // standard error; whole when the process has ended
	meta     map[string]any
	calls    int
	answered map[int]message // answers that nobody has asked for yet
	notes    []message       // notifications, as they came
	schemas  map[string]*jsonschema.Resolved
	person   map[string]any // how forms are filled in; nil: none is shown
	form     string         // the text of the last one
}

// message is any message of JSON-RPC.
type message struct {
	ID     *int            `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	} `json:"error"`
}

// toolResult is the result of tools/call.
type toolResult struct {
	Content           []struct{ Type, Text string }
	StructuredContent json.RawMessage
	IsError           bool
}

// startAgent starts the program.
func startAgent(path string, env []string, args ...string) (*agent, error) {
	a := &agent{cmd: exec.Command(path, args...), answered: make(map[int]message)}
	a.cmd.Env, a.cmd.Stderr = env, &a.log
	in, err := a.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.in, a.pipe, a.out = in, out.(*os.File), bufio.NewReader(out)
	return a, a.cmd.Start()
}

// stateless is the revision from which on a client does not introduce itself, but
// says with every request who it is.
const stateless = "2026-07-28"

// introduce does what a client of a revision begins with, and learns what the
// answers of the tools must look like.
func (a *agent) introduce(revision string, tasks bool) error {
	capabilities := map[string]any{}
	if tasks {
		capabilities["extensions"] = map[string]any{"io.modelcontextprotocol/tasks": map[string]any{}}
	}
	if a.person != nil {
		capabilities["elicitation"] = map[string]any{"form": map[string]any{}}
	}
	who := map[string]any{"name": "transcript", "version": "1"}
	if revision >= stateless { // dates: they sort as text
		a.meta = map[string]any{
			"io.modelcontextprotocol/protocolVersion":    revision,
			"io.modelcontextprotocol/clientInfo":         who,
			"io.modelcontextprotocol/clientCapabilities": capabilities,
		}
	} else {
		hello := map[string]any{"protocolVersion": revision, "capabilities": capabilities, "clientInfo": who}
		if m, err := a.ask("initialize", hello); err != nil || m.Error != nil {
			return fmt.Errorf("initialize: %v, %v", m.Error, err)
		}
		if err := a.notify("notifications/initialized", map[string]any{}); err != nil {
			return err
		}
	}
	return a.learn()
}

// learn reads the output schema of every tool.
func (a *agent) learn() error {
	m, err := a.ask("tools/list", map[string]any{})
	if err != nil {
		return err
	}
	var list struct {
		Tools []struct {
			Name         string
			OutputSchema *jsonschema.Schema
		}
	}
	if err := json.Unmarshal(m.Result, &list); err != nil {
		return fmt.Errorf("tools/list: %w", err)
	}
	a.schemas = make(map[string]*jsonschema.Resolved)
	for _, t := range list.Tools {
		if t.OutputSchema == nil {
			return fmt.Errorf("%s has no output schema", t.Name)
		}
		if a.schemas[t.Name], err = t.OutputSchema.Resolve(nil); err != nil {
			return fmt.Errorf("the output schema of %s: %w", t.Name, err)
		}
	}
	return nil
}

// send makes a request and gives its id.
func (a *agent) send(method string, params map[string]any) (int, error) {
	a.calls++
	if a.meta != nil {
		meta, _ := params["_meta"].(map[string]any)
		all := map[string]any{}
		for _, from := range []map[string]any{a.meta, meta} {
			for key, value := range from {
				all[key] = value
			}
		}
		params["_meta"] = all
	}
	return a.calls, a.write(map[string]any{"jsonrpc": "2.0", "id": a.calls, "method": method, "params": params})
}

// notify sends what has no answer.
func (a *agent) notify(method string, params map[string]any) error {
	return a.write(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

func (a *agent) write(m map[string]any) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = a.in.Write(append(line, '\n'))
	return err
}

// ask makes a request and waits for its answer.
func (a *agent) ask(method string, params map[string]any) (message, error) {
	id, err := a.send(method, params)
	if err != nil {
		return message{}, err
	}
	return a.answer(id)
}

// answer waits for the answer of a request.
func (a *agent) answer(id int) (message, error) {
	for {
		if m, ok := a.answered[id]; ok {
			delete(a.answered, id)
			return m, nil
		}
		if err := a.read(); err != nil {
			return message{}, err
		}
	}
}

// read keeps the next message that comes.
func (a *agent) read() error {
	if err := a.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := a.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("nothing comes: %w", err)
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("%q is no message: %w", line, err)
	}
	switch {
	case m.Method == "elicitation/create" && m.ID != nil:
		var form struct{ Message string }
		if err := json.Unmarshal(m.Params, &form); err != nil {
			return err
		}
		a.form = form.Message
		return a.write(map[string]any{"jsonrpc": "2.0", "id": *m.ID, "result": a.person})
	case m.Method != "":
		a.notes = append(a.notes, m)
	case m.ID != nil:
		a.answered[*m.ID] = m
	default:
		return fmt.Errorf("an answer to nothing: %s", line)
	}
	return nil
}

// result reads the answer of a call, and checks what must hold for every one.
func (a *agent) result(tool string, m message) (toolResult, error) {
	var r toolResult
	if err := json.Unmarshal(m.Result, &r); err != nil {
		return r, fmt.Errorf("%s is no result of a tool: %w", m.Result, err)
	}
	if len(r.Content) != 1 || r.Content[0].Type != "text" || r.Content[0].Text == "" {
		return r, fmt.Errorf("the content is not one text: %s", m.Result)
	}
	var data any
	if err := json.Unmarshal(r.StructuredContent, &data); err != nil {
		return r, fmt.Errorf("%q is no structured content: %w", r.StructuredContent, err)
	}
	schema := a.schemas[tool]
	if schema == nil {
		return r, errors.New("a tool that is not listed has answered")
	}
	if err := schema.Validate(data); err != nil {
		return r, fmt.Errorf("the answer is not as the output schema says: %w\n%s", err, r.StructuredContent)
	}
	return r, nil
}

// leave ends the program as its clients do: the input ends, and it must end by
// itself, without an error.
func (a *agent) leave() error {
	a.in.Close()
	killer := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	defer killer.Stop()
	err := a.pipe.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.Copy(io.Discard, a.out) // Wait closes the pipe
	}
	if err := errors.Join(err, a.cmd.Wait()); err != nil {
		return fmt.Errorf("telexec-mcp: %w\n%s", err, strings.TrimSpace(a.log.String()))
	}
	return nil
}
