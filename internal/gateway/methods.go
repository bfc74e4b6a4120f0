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

// ownPaths are answered by the gateway itself.
var ownPaths = []string{"/healthz", "/readyz", "/metrics", "/openapi.json"}

// reads reports whether a request asks for what is at the path.
func reads(r *http.Request, path string) bool {
	return r.URL.Path == path && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// route is one HTTP rule of the contract.
type route struct {
	method string
	path   *regexp.Regexp
}

// variable is a field in the path of a rule.
var variable = regexp.MustCompile(`\\\{[^}]*\\\}`)

// contractRoutes gives the HTTP rules of all methods. grpc-gateway has them too,
// and tells of a request only that another method would have matched, not which.
func contractRoutes() []route {
	var routes []route
	add := func(method, path string) {
		if path != "" {
			text := variable.ReplaceAllLiteralString(regexp.QuoteMeta(path), "[^/]+")
			routes = append(routes, route{method, regexp.MustCompile("^" + text + "$")})
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
	return routes
}

// allowed gives the methods that a path has, for the Allow header (RFC 9110
// §10.2.1); none where there is no such path.
func (g *Gateway) allowed(path string) []string {
	if slices.Contains(ownPaths, path) {
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
