package main

import (
	"reflect"

	"github.com/alecthomas/kong"
)

// An empty value of a flag is hardly ever meant: it is what a variable leaves that
// is not set, or a $(…) that has failed. Were it read as "not given", then
// --request-hash "$hash" would approve whatever the request is by now, and --from
// "$noted" would check nothing and say that all is well. So it is refused, for every
// flag of every command. Where an empty value means something of its own, or the
// command must not fail for so little, the flag says allowempty.
//
// A variable of the environment that is set and empty counts as not set, as it does
// everywhere.

// refuseEmpty makes the flags of a grammar refuse empty values.
func refuseEmpty(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && !f.IsBool() && !f.Tag.Has("allowempty") {
			f.Mapper = notEmpty{f.Mapper}
		}
		return next(nil)
	})
}

// notEmpty reads what its Mapper reads, unless it is empty.
type notEmpty struct{ kong.Mapper }

// Decode looks at the word as it was typed: a list would be one without elements,
// which is what a flag that was not given leaves, too.
func (m notEmpty) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Value == "" {
		return &emptyFlag{ctx.Value.Name}
	}
	return m.Mapper.Decode(ctx, target)
}

// emptyFlag is a flag that was given without a value.
type emptyFlag struct{ name string }

func (e *emptyFlag) Error() string { return "--" + e.name + " is empty" }
