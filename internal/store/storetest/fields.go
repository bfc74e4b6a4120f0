package storetest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/task"
)

// everyField fills every field of a command by reflection, so that a field that
// is added later and forgotten in a driver fails here.
func everyField(b *bench) {
	first := filled(b, 1)
	first.ID, first.State = newID(first.CreateTime), command.Queued
	b.create(first)
	first.Spec.Sudo, first.Spec.SecretsLost = withoutPassword(first.Spec.Sudo), false
	b.pause()
	b.same(b.stored(first.ID), first)

	second := filled(b, 1000)
	second.ID, second.State = first.ID, command.Starting
	b.must(b.Apply(b.Context(), command.Change{From: first.State, Fence: first.Fence, Command: second}))
	b.pause()
	keep(&second, first)
	b.same(b.stored(first.ID), second)
	list, err := b.List(b.Context(), command.Filter{})
	b.must(err)
	if len(list) != 1 {
		b.Fatalf("%d commands listed, want 1", len(list))
	}
	b.same(list[0], second)

	// All that can go is gone again.
	third := command.Command{ID: first.ID, State: command.Starting}
	b.must(b.Apply(b.Context(), command.Change{From: second.State, Fence: second.Fence, Command: third}))
	b.pause()
	keep(&third, first)
	b.same(b.stored(first.ID), third)

	// What is to be masked is kept to the end.
	for _, state := range []command.State{command.Running, command.Completed} {
		third = b.step(third, state)
		b.pause()
		b.same(b.stored(first.ID), third)
	}
}

// keep gives c what Apply does not change.
func keep(c *command.Command, of command.Command) {
	c.Spec, c.CreatedBy, c.CreateTime, c.Earliest = of.Spec, of.CreatedBy, of.CreateTime, of.Earliest
}

func filled(b *bench, seed int64) command.Command {
	var c command.Command
	n := seed
	fill(b, reflect.ValueOf(&c).Elem(), &n)
	return c
}

// fill sets a value to something that is not zero and that no other has. Strings
// are no UTF-8 and have a NUL in them.
func fill(b *bench, v reflect.Value, n *int64) {
	b.Helper()
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.UnixMicro(1_770_000_000_000_000 + *n).UTC()))
		return
	case command.State, session.State, task.State, task.StepState: // set by the case
		return
	case secret.Text:
		v.Set(reflect.ValueOf(secret.New(fmt.Sprintf("hush %d", *n))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%d \xff\x00 '\"€", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(*n)
	case reflect.Uint8, reflect.Uint32:
		v.SetUint(uint64(*n) % 251)
	case reflect.Float64:
		v.SetFloat(float64(*n) + 1.0/3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(b, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(b, v.Field(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(b, v.Index(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(b, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 3 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(b, key, n)
			fill(b, value, n)
			v.SetMapIndex(key, value)
		}
	default:
		b.Fatalf("storetest cannot fill a %s; teach it to", v.Type())
	}
}

// zeroCommand has nothing but what it must have, and values at the edges.
func zeroCommand(b *bench) {
	c := command.Command{ID: newID(b.now), State: command.Queued}
	b.create(c)
	b.pause()
	b.same(b.stored(c.ID), c)

	code := 0
	next := c
	next.State = command.Completed
	next.Exit = command.Exit{Code: &code}
	next.Failure = &command.Failure{}
	next.Cancellation = &command.Cancellation{Report: &command.CancelReport{}}
	next.Progress = &command.Progress{}
	next.Truncation = &command.Truncation{Offset: command.Sizes{-1, -1}}
	next.Size = command.Sizes{1<<63 - 1, -1}
	next.Fence = -1
	b.must(b.Apply(b.Context(), command.Change{From: command.Queued, Command: next}))
	b.pause()
	b.same(b.stored(c.ID), next)

	precise := b.command(func(c *command.Command) {
		c.CreateTime = c.CreateTime.Add(1234567 * time.Nanosecond).In(time.FixedZone("", 3600))
		c.Spec.Timeout = 1234567 * time.Nanosecond
		c.Spec.Priority = -5
		c.Spec.Pty = &command.Pty{Columns: 1<<32 - 1}
		c.Spec.Argv = []string{"", "\x00", "\xff\xfe", "ü"}
		c.Spec.Labels = map[string]string{"": "", "a": ""}
	})
	b.create(precise)
	b.pause()
	b.same(b.stored(precise.ID), precise)
}

// secrets checks that what only the start needs is removed with the start.
func secrets(b *bench) {
	for _, end := range []command.State{command.Running, command.Completed, command.Lost, command.Cancelled} {
		c := b.create(b.command(func(c *command.Command) {
			c.State = command.AwaitingApproval
			c.Spec.Env = map[string]string{"TOKEN": "hush", "EMPTY": ""}
			c.Spec.Stdin = []byte("hush\x00\xff")
		}))
		for _, state := range []command.State{command.Queued, command.Starting, command.Queued, command.Starting} {
			c = b.step(c, state)
			b.pause()
			if got := b.stored(c.ID); got.Spec.Env["TOKEN"] != "hush" || string(got.Spec.Stdin) != "hush\x00\xff" {
				b.Fatalf("in state %s env and stdin are gone: %s", state, text(got.Spec))
			}
		}
		c = b.step(c, end)
		b.pause()
		got := b.stored(c.ID)
		b.same(got, c)
		if got.Spec.Env["TOKEN"] != "" || got.Spec.Stdin != nil {
			b.Fatalf("in state %s a secret is left: %s", end, text(got.Spec))
		}
		if names := got.Spec.EnvNames(); len(names) != 2 || names[0] != "EMPTY" || names[1] != "TOKEN" {
			b.Fatalf("names of variables are %q", names)
		}
	}
}

// withoutPassword is what a store keeps of s.
func withoutPassword(s *command.Sudo) *command.Sudo {
	return &command.Sudo{User: s.User, NeedsPassword: s.NeedsPassword}
}

// sudoPassword checks that a password for sudo goes through Create untouched and
// is in no answer behind it, and in no file.
func sudoPassword(b *bench) {
	const password = "hush, correct horse battery staple"
	sudo := &command.Sudo{User: "deploy", Password: secret.New(password), NeedsPassword: true}
	c := b.command(func(c *command.Command) {
		c.Spec.Sudo, c.Spec.RequestID = sudo, "once"
	})
	b.create(c) // gives it back with the password
	kept := c
	kept.Spec.Sudo = withoutPassword(sudo)
	b.pause()
	b.same(b.stored(c.ID), kept)
	list, err := b.List(b.Context(), command.Filter{})
	b.must(err)
	b.same(list[0], kept)
	replayed, found, err := b.Replay(b.Context(), c, []byte("hash of "+c.ID))
	b.must(err)
	if !found {
		b.Fatal("the request is not known")
	}
	b.same(replayed, kept)
	for _, state := range []command.State{command.Starting, command.Running, command.Completed} {
		c = b.step(c, state)
		kept = c
		kept.Spec.Sudo = withoutPassword(sudo)
		b.pause()
		b.same(b.stored(c.ID), kept)
	}
	for _, s := range []*command.Sudo{{}, {User: "root"}} {
		other := b.create(b.command(func(c *command.Command) { c.Spec.Sudo = s }))
		b.pause()
		b.same(b.stored(other.ID), other)
	}
	b.hides(password)
}

// hides requires that no file holds any of the words. A driver that keeps its files
// elsewhere has nothing here to look through.
func (b *bench) hides(words ...string) {
	b.Helper()
	b.must(filepath.WalkDir(b.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, word := range words {
			if bytes.Contains(data, []byte(word)) {
				b.Errorf("%s holds %q", path, word)
			}
		}
		return err
	}))
}

// nothingInClear plants secrets wherever a command may have them and looks for them
// in the files at every step of its life.
func nothingInClear(b *bench) {
	const env, stdin, masked = "hush, env of a command", "hush, stdin of a command", "hush, masked in the output"
	check := func() {
		b.Helper()
		b.pause()
		b.hides(env, stdin, masked)
	}
	secrets := func(spec *command.Spec) {
		spec.Env = map[string]string{"TOKEN": env}
		spec.Stdin = bytes.Repeat([]byte(stdin), 2000)
		spec.Redact = []secret.Text{secret.New(masked), secret.New(env)}
	}
	gated, gate := b.gated(func(c *command.Command) { secrets(&c.Spec) })
	check()
	b.same(b.stored(gated.ID), gated)

	// Whoever decides may change them.
	spec := gated.Spec
	secrets(&spec)
	spec.Env["TOKEN"] += ", changed"
	step := b.decision(gated, gate, command.Queued)
	step.Spec = &spec
	b.must(b.Decide(b.Context(), []approval.Step{step}))
	gated = step.Change.Command
	gated.Spec = spec
	check()
	b.same(b.stored(gated.ID), gated)

	for _, state := range []command.State{command.Starting, command.Running} {
		gated = b.step(gated, state)
		check()
		b.same(b.stored(gated.ID), gated)
	}
	if got := b.stored(gated.ID); len(got.Spec.Redact) != 2 || got.Spec.Redact[1].Reveal() != env {
		b.Fatalf("what is to be masked is %d values", len(got.Spec.Redact))
	}
	gated = b.step(gated, command.Completed, command.Chunk{Data: bytes.Repeat([]byte("output "), 100_000)})
	check()
	b.same(b.stored(gated.ID), gated)

	// One that ends before it has started.
	c := b.create(b.command(func(c *command.Command) { secrets(&c.Spec) }))
	check()
	c = b.step(c, command.Expired)
	check()
	b.same(b.stored(c.ID), c)
}
