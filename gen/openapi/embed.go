// Package openapi holds the OpenAPI 3.1 document of the REST API. "make gen"
// writes it; internal/openapi says how it comes about.
package openapi

import _ "embed"

// JSON is the document. It is not to be changed.
//
//go:embed telexec.openapi.json
var JSON []byte
