package gateway

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// ownPaths are answered by the gateway itself, each to these methods.
var ownPaths = map[string][]string{
	"/":             {http.MethodGet, http.MethodHead},
	"/healthz":      {http.MethodGet, http.MethodHead},
	"/readyz":       {http.MethodGet, http.MethodHead},
	"/metrics":      {http.MethodGet, http.MethodHead},
	"/openapi.json": {http.MethodGet, http.MethodHead},
	"/login":        {http.MethodGet, http.MethodHead, http.MethodPost},
	"/logout":       {http.MethodPost},
	socketPath:      {http.MethodGet},

	"/docs":                                  {http.MethodGet, http.MethodHead},
	"/docs/docs.js":                          {http.MethodGet, http.MethodHead},
	"/docs/docs.css":                         {http.MethodGet, http.MethodHead},
	"/docs/swagger-ui.css":                   {http.MethodGet, http.MethodHead},
	"/docs/swagger-ui-bundle.js":             {http.MethodGet, http.MethodHead},
	"/docs/swagger-ui-bundle.js.LICENSE.txt": {http.MethodGet, http.MethodHead},
}

// reads reports whether a request asks for what is at the path.
func reads(r *http.Request, path string) bool {
	return r.URL.Path == path && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// route is one HTTP rule of the contract.
type route struct {
	method string
	rule   string // of the path: "/v1/commands/{command_id}"
	fixed  int    // bytes of it that are no field
	path   *regexp.Regexp
}

// variable is a field in the path of a rule.
var variable = regexp.MustCompile(`\{[^}]*\}`)

// contractRoutes gives the HTTP rules of all methods, and that of sockets, which is
// like them. grpc-gateway has those of the methods too, and tells of a request only
// that another method would have matched, not which.
func contractRoutes() []route {
	var routes []route
	add := func(method, path string) {
		if path != "" {
			fixed := variable.Split(path, -1)
			pattern := make([]string, len(fixed))
			for i, text := range fixed {
				pattern[i] = regexp.QuoteMeta(text)
			}
			routes = append(routes, route{method, path, len(strings.Join(fixed, "")), regexp.MustCompile("^" + strings.Join(pattern, "[^/]+") + "$")})
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage(telexecv1.File_telexec_v1_command_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, _ := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					add(http.MethodGet, r.GetGet())
					add(http.MethodPost, r.GetPost())
					add(http.MethodPut, r.GetPut())
					add(http.MethodPatch, r.GetPatch())
					add(http.MethodDelete, r.GetDelete())
				}
			}
		}
		return true
	})
	add(http.MethodGet, streamRule)
	add(http.MethodGet, updatesRule)
	add(http.MethodGet, terminalRule)
	return routes
}

// allowed gives the methods that a path has, for the Allow header (RFC 9110
// §10.2.1); none where there is no such path.
func (g *Gateway) allowed(path string) []string {
	if methods, own := ownPaths[path]; own {
		return methods
	}
	if uiRule(path) != "" {
		return []string{http.MethodGet, http.MethodHead}
	}
	var methods []string
	for _, r := range g.contract {
		if r.path.MatchString(path) {
			methods = append(methods, r.method)
		}
	}
	slices.SortFunc(methods, strings.Compare)
	return slices.Compact(methods)
}

// ruleOf gives the rule that a path is by; empty where there is none. Of several,
// "/v1/commands/{command_id}" and "/v1/commands/{command_id}:cancel", it is one of
// this method, and that of which the path has most.
func (g *Gateway) ruleOf(method, path string) string {
	var best route
	for _, r := range g.contract {
		if !r.path.MatchString(path) {
			continue
		}
		switch known, now := best.method == method, r.method == method; {
		case best.rule == "", now && !known, now == known && r.fixed > best.fixed:
			best = r
		}
	}
	return best.rule
}
