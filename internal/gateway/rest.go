package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/telexec/telexec/internal/fault"
)

// Metadata of the calls to the gRPC server, which believes them from nobody else.
const (
	originKey    = "telexec-origin"
	addressKey   = "telexec-address"    // of the HTTP client
	clientKey    = "telexec-client-bin" // name in its certificate, which need not be ASCII
	requestIDKey = "x-request-id"
)

// newREST makes the mux of grpc-gateway.
func (g *Gateway) newREST() *runtime.ServeMux {
	useStrictQueries()
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, lines{&runtime.JSONPb{}}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			g.refuse(w, r, err)
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
			g.refuseRoute(w, r, status)
		}),
		runtime.WithStreamErrorHandler(g.streamFailed),
		// No header of the client becomes metadata but the token, which the library
		// passes on itself; so nobody can set our own keys from outside.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			c := g.visit(r)
			md := metadata.Pairs(originKey, string(c.Origin), addressKey, c.Address, requestIDKey, c.Call)
			if name := clientName(r); name != "" {
				md.Set(clientKey, name)
			}
			return md
		}),
		runtime.WithMiddlewares(g.place),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
}

// streamFailed gives the last line of a stream that broke off, in the one shape.
func (g *Gateway) streamFailed(ctx context.Context, err error) *status.Status {
	httpStatus, body := g.options.Problem(err)
	if failedHere(httpStatus, err) {
		g.options.Logger.ErrorContext(ctx, "the stream failed in the gateway", "error", err)
	}
	return status.FromProto(body)
}

// fromServer reports whether err came from the gRPC server, which gives all its
// failures an ErrorInfo; what the libraries on this side make has none.
func fromServer(err error) bool {
	st, ok := status.FromError(err)
	return ok && slices.ContainsFunc(st.Details(), func(d any) bool {
		_, info := d.(*errdetails.ErrorInfo)
		return info
	})
}

// lines is JSON in which each message of a stream is a line of its own, without
// the {"result": …} that grpc-gateway puts around it and the OpenAPI document
// does not know.
type lines struct{ *runtime.JSONPb }

// Marshal is of runtime.Marshaler.
func (l lines) Marshal(v any) ([]byte, error) {
	if envelope, ok := v.(map[string]any); ok {
		if message, ok := envelope["result"]; ok {
			v = message
		}
	}
	return l.JSONPb.Marshal(v)
}

// streamType is the type of an answer that is a stream.
const streamType = "application/x-ndjson"

// StreamContentType is of runtime.StreamContentType.
func (lines) StreamContentType(any) string { return streamType }

// useStrictQueries makes grpc-gateway refuse query parameters that do not exist.
// The library keeps its parser in a variable of the package, hence once.
var useStrictQueries = sync.OnceFunc(func() {
	runtime.NewServeMux(runtime.SetQueryParameterParser(strictQuery{}))
})

// strictQuery is the library's parser, but for parameters that name no field or
// contradict the path: it would skip them, and a misspelt offset would give the
// wrong bytes.
type strictQuery struct{ runtime.DefaultQueryParser }

// Parse is of runtime.QueryParameterParser.
func (q strictQuery) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for key, given := range values {
		path, entry, isEntry := strings.Cut(key, "[") // labels[env]
		d := m.ProtoReflect().Descriptor()
		for name := range strings.SplitSeq(path, ".") {
			var f protoreflect.FieldDescriptor
			if d != nil {
				if f = d.Fields().ByName(protoreflect.Name(name)); f == nil {
					f = d.Fields().ByJSONName(name)
				}
			}
			if f == nil {
				return fmt.Errorf("there is no query parameter %q; there are %s", cut(key), strings.Join(parameters(m, filter), ", "))
			}
			if d == m.ProtoReflect().Descriptor() && filter.HasCommonPrefix([]string{string(f.Name())}) {
				if slices.ContainsFunc(given, func(value string) bool { return value != m.ProtoReflect().Get(f).String() }) {
					return contradiction(f)
				}
			}
			if d = f.Message(); f.IsMap() {
				if entry, closed := strings.CutSuffix(entry, "]"); !isEntry || !closed || strings.ContainsAny(entry, "[]") {
					return fmt.Errorf("%s is given as %s[key]=value", cut(key), name)
				}
				isEntry = false
			}
		}
		if isEntry {
			return fmt.Errorf("%s has no keys: %s", path, cut(key))
		}
		if d != nil && d.FullName() == "google.protobuf.Timestamp" {
			times, err := timesOf(key, given)
			if err != nil {
				return err
			}
			values[key] = times
		}
	}
	if err := q.DefaultQueryParser.Parse(m, values, filter); err != nil {
		return errors.New(cut(ofLibrary.ReplaceAllString(err.Error(), "")))
	}
	return nil
}

// ofLibrary is what an error of the library says of itself.
var ofLibrary = regexp.MustCompile(`strconv\.\w+: parsing `)

// timesOf gives times as the library's parser takes them: a date is the beginning of that
// day, UTC.
func timesOf(key string, given []string) ([]string, error) {
	times := make([]string, len(given))
	for i, value := range given {
		if _, err := time.Parse(time.DateOnly, value); err == nil {
			value += "T00:00:00Z"
		}
		at, err := time.Parse(time.RFC3339Nano, value)
		if year := at.UTC().Year(); err != nil || year < 1 || year > 9999 {
			return nil, fmt.Errorf("%s is no time: give it as in RFC 3339, 2026-01-02T15:04:05Z, or as a date, 2026-01-02", cut(key))
		}
		times[i] = value
	}
	return times, nil
}

// parameters lists the fields of m that are not part of the path.
func parameters(m proto.Message, filter *utilities.DoubleArray) []string {
	var names []string
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); !filter.HasCommonPrefix([]string{string(f.Name())}) {
			names = append(names, f.JSONName())
		}
	}
	slices.Sort(names)
	return names
}

// peekFirst makes a server stream whose Header waits for the first message. The
// generated handler asks for the header before it answers; so a stream that
// fails at once is answered like any other failure, with its HTTP status,
// instead of a 200 with an error in the body.
func peekFirst(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil || desc.ClientStreams {
		return s, err
	}
	answer, err := answerOf(method)
	if err != nil {
		return nil, err
	}
	return &peeked{ClientStream: s, answer: answer}, nil
}

// answerOf gives the type of the answers of a method, "/package.Service/Method".
func answerOf(method string) (protoreflect.MessageType, error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", method, err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a method", method)
	}
	return protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
}

// peeked is a stream whose first message may have been read ahead. It is for one
// goroutine, as the library uses it.
type peeked struct {
	grpc.ClientStream
	answer protoreflect.MessageType
	first  proto.Message // read ahead, not yet given
	end    error         // that came instead of it
}

// Header waits for the first message, and fails where the call failed at once.
func (p *peeked) Header() (metadata.MD, error) {
	md, err := p.ClientStream.Header()
	if err != nil {
		return nil, err
	}
	first := p.answer.New().Interface()
	if p.end = p.ClientStream.RecvMsg(first); p.end == nil {
		p.first = first
	} else if !errors.Is(p.end, io.EOF) {
		return nil, p.end
	}
	return md, nil
}

func (p *peeked) RecvMsg(m any) error {
	if p.end != nil {
		return p.end
	}
	if p.first != nil {
		proto.Merge(m.(proto.Message), p.first)
		p.first = nil
		return nil
	}
	return p.ClientStream.RecvMsg(m)
}

// refuseRoute answers for a path or method that does not exist.
func (g *Gateway) refuseRoute(w http.ResponseWriter, r *http.Request, status int) {
	hint := "GET /openapi.json lists all paths"
	switch status {
	case http.StatusNotFound:
		g.refuse(w, r, fault.New(fault.NotFound, fault.ReasonUnknownRoute, "there is no path %s", r.URL.Path).WithHint("%s", hint))
	case http.StatusMethodNotAllowed:
		methods := strings.Join(g.allowed(r.URL.Path), ", ")
		w.Header().Set("Allow", methods)
		g.refuseAs(w, r, status, fault.New(fault.Unsupported, fault.ReasonUnknownRoute, "%s %s does not exist; the path takes %s", r.Method, r.URL.Path, methods).WithHint("%s", hint))
	default:
		g.refuseAs(w, r, status, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the request cannot be understood: %s", http.StatusText(status)).WithHint("%s", hint))
	}
}
