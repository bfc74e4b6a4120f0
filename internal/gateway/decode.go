package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/telexec/telexec/internal/fault"
)

// maxQuoted is how many bytes of what a client wrote a refusal repeats.
const maxQuoted = 200

// checkText refuses what no field of the contract can hold: text that is not
// UTF-8. gRPC would fail on it only when it sends the call on, as if the defect
// were ours.
func checkText(r *http.Request) error {
	if !utf8.ValidString(r.URL.Path) {
		return notUTF8("path")
	}
	// What cannot be parsed is left to the library, which says why.
	values, _ := url.ParseQuery(r.URL.RawQuery)
	for key, all := range values {
		if !utf8.ValidString(key) {
			return notUTF8("query")
		}
		for _, value := range all {
			if !utf8.ValidString(value) {
				return notUTF8(fmt.Sprintf("query parameter %q", cut(key)))
			}
		}
	}
	return nil
}

func notUTF8(where string) error {
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the request's %s is not UTF-8", where).
		WithHint("Encode the text as UTF-8 before it is percent-encoded")
}

// checkType refuses a body that does not say that it is JSON. What the forms of
// web pages can send, and what a script sends without a preflight, says something
// else or nothing (Fetch standard, CORS-safelisted request-header).
func checkType(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	if given == "" && r.ContentLength == 0 || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(given); err == nil && kind == "application/json" {
		return nil
	}
	return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the body is said to be %q; with a cookie or a client certificate it must be JSON, and say so", cut(given)).
		WithHint("Send the header \"Content-Type: application/json\", or a bearer token")
}

// cut bounds a text that a client wrote.
func cut(text string) string {
	if len(text) <= maxQuoted {
		return text
	}
	return strings.ToValidUTF8(text[:maxQuoted], "") + "…"
}

// placed is a request's body that knows what the path of the request has said.
type placed struct {
	io.ReadCloser
	path map[string]string // by the name of the field
}

// place is the library's hook between route and handler: it shows to the decoder
// of the body what the route has found in the path.
func (g *Gateway) place(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, path map[string]string) {
		if r.Method == http.MethodPost && r.URL.RawQuery != "" {
			// All fields are in the body; the library would skip these.
			g.refuse(w, r, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "a POST request has no query parameters").
				WithHint("Put the fields into the body, as JSON"))
			return
		}
		if r.Method == http.MethodDelete && r.ContentLength != 0 {
			g.refuse(w, r, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "a DELETE request has no body").
				WithHint("Put the fields into the query"))
			return
		}
		r.Body = placed{r.Body, path}
		next(w, r, path)
	}
}

// NewDecoder is of runtime.Marshaler. The decoder takes the whole of a body, and
// never repeats a value from it: a value may be a secret.
func (lines) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		m, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("%T is not a message", v)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := wholeJSON(text); err != nil {
			return err // io.EOF: no body, a message without fields
		}
		if err := protojson.Unmarshal(text, m); err != nil {
			return withoutValues(err)
		}
		if body, ok := r.(placed); ok {
			return body.agrees(m)
		}
		return nil
	})
}

// agrees fails where a field of the body contradicts the path.
func (p placed) agrees(m proto.Message) error {
	for name, said := range p.path {
		if f := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)); f != nil {
			if value := m.ProtoReflect().Get(f).String(); value != "" && value != said {
				return contradiction(f)
			}
		}
	}
	return nil
}

func contradiction(f protoreflect.FieldDescriptor) error {
	return fmt.Errorf("%s contradicts the path, which names another; leave it out", f.JSONName())
}

// wholeJSON reports whether text is one JSON value and nothing else; io.EOF
// where it is nothing at all.
func wholeJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	var one json.RawMessage
	err := d.Decode(&one)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("the body is not JSON, at byte %d", syntax.Offset)
	}
	if err != nil {
		return err // io.EOF or io.ErrUnexpectedEOF
	}
	if rest := bytes.TrimLeft(text[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return fmt.Errorf("there is something behind the end of the JSON object, at byte %d", len(text)-len(rest)+1)
	}
	return nil
}

// What protojson says, as far as it can be repeated: where it was, and what
// names a field or a type.
var (
	position = regexp.MustCompile(`\(line (\d+:\d+)\)`)
	named    = []*regexp.Regexp{
		regexp.MustCompile(`: ((?:unknown|duplicate) field "[^"\\]{1,64}")`),
		regexp.MustCompile(`: (invalid value for \w+ field \w{1,64}): `),
		regexp.MustCompile(`: (invalid value for \w+ key): `),
		regexp.MustCompile(`: (duplicate map key) `),
		regexp.MustCompile(`: (invalid google\.protobuf\.\w+ value) `),
		regexp.MustCompile(`: (google\.protobuf\.\w+ value out of range): `),
		regexp.MustCompile(`: (invalid UTF-8)`),
	}
)

// withoutValues gives the error of protojson without what the client has sent
// but the names of fields.
func withoutValues(err error) error {
	where, what := "", "a value of the wrong type"
	text := err.Error()
	at := position.FindStringSubmatchIndex(text)
	if at != nil {
		where = " (line " + text[at[2]:at[3]] + ")"
		text = text[at[1]:]
	}
	// Only the beginning is protojson's; behind it a value may look like it.
	if i := slices.IndexFunc(named, func(r *regexp.Regexp) bool {
		found := r.FindStringIndex(text)
		return found != nil && found[0] == 0
	}); i >= 0 {
		what = named[i].FindStringSubmatch(text)[1]
	}
	return errors.New(what + where)
}
