// Package web is the web UI: a page in TypeScript and React (src), built into
// dist by "make web" and served by internal/gateway. What is built is committed,
// so that the service is built with Go alone; "make check" builds it anew and
// compares.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Files are those of the page: index.html, and what it needs in assets/, whose
// names change with their content.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: " + err.Error()) // the name of a directory that is embedded above
	}
	return files
}
