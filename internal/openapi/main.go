// Package main makes gen/openapi/telexec.openapi.json: the one OpenAPI 3.1
// document of the REST API.
//
// protoc-gen-openapiv3 writes one document per service, with paths and schemas
// and nothing else. Merge joins them and adds what a reader of the document
// needs and the generator cannot know: what holds for all calls (who calls, limits,
// streams, and the reasons of errors as docs/errors.md explains them), the errors
// that each operation can give, an example of each request and each response, and the
// WebSockets. The examples are protobuf messages of the generated types (see
// examples.go), so that they cannot drift from the contract: a field that is
// gone does not compile, and a test holds the requests against the rules in the
// proto.
//
// "make gen" runs it, "make check" fails when the committed document is not what
// it gives.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// run merges the documents named by args into the one named by -out.
func run(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("openapi", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("out", "", "where to write the document")
	errorsPage := flags.String("errors", "", "the page that explains the reasons of errors")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *errorsPage == "" || flags.NArg() == 0 {
		return fmt.Errorf("want -out FILE, -errors PAGE and the documents to merge")
	}
	page, err := os.ReadFile(*errorsPage)
	if err != nil {
		return err
	}
	parts := make([][]byte, flags.NArg())
	for i, name := range flags.Args() {
		if parts[i], err = os.ReadFile(name); err != nil {
			return err
		}
	}
	doc, err := Merge(parts, operations(), string(page))
	if err != nil {
		return err
	}
	return os.WriteFile(*out, doc, 0o644)
}
