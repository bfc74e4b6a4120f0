package policy

import (
	"path"
	"slices"
	"strings"
)

// One file has many paths: /etc/passwd is /etc//passwd, passwd behind cd /etc,
// and ../../etc/passwd from the right place. A rule that restricts counts them
// all, as far as the line tells; one that allows means the path as it is written.

// maxDirectories is in how many places a line may be before nobody knows where.
const maxDirectories = 8

// starts notes where the request begins: "" is the directory where commands
// start by themselves, wherever that is.
func (r *reading) starts(directory string) {
	r.moves = directory != ""
	if strings.HasPrefix(directory, "~") {
		r.lost = true
		return
	}
	r.directories = []string{path.Join(directory)} // which leaves "" as it is
}

// goes notes that the line goes to a directory, from any in which it may be:
// what stands first in a text need not run first.
func (r *reading) goes(to string) {
	r.moves = true
	for _, from := range r.directories {
		d := resolve(from, to)
		switch {
		case slices.Contains(r.directories, d):
		case len(r.directories) < maxDirectories:
			r.directories = append(r.directories, d)
		default:
			r.lost = true
			return
		}
	}
}

// strays notes that the line goes to a directory that is not known.
func (r *reading) strays() { r.moves, r.lost = true, true }

// resolve gives the path that text is in a directory, clean.
func resolve(directory, text string) string {
	if text[0] == '/' {
		return path.Clean(text)
	}
	return path.Join(directory, text)
}

// pathKind is how patterns of one kind match paths.
type pathKind struct {
	match func(pattern, path string) bool
	// ends: the pattern matches some path that ends in /tail; a tail of "" is any
	// directory.
	ends func(pattern, tail string) bool
}

var (
	programPaths = pathKind{programIs, programEnds}
	filePaths    = pathKind{globPath, func(pattern, tail string) bool { return globEnds(pattern, tail, true) }}
	wordPaths    = pathKind{glob, func(pattern, tail string) bool { return globEnds(pattern, tail, false) }}
)

// mayBe reports whether the path text, which is not empty, may be one that
// pattern is about by another way than it is written.
func (r *reading) mayBe(kind pathKind, pattern, text string) bool {
	if text[0] == '/' {
		return kind.match(pattern, path.Clean(text))
	}
	for _, d := range r.directories {
		p := resolve(d, text)
		if kind.match(pattern, p) || (p == ".." || strings.HasPrefix(p, "../")) && kind.ends(pattern, tail(p)) {
			return true
		}
	}
	anywhere := r.lost || slices.Contains(r.variables, "CDPATH") || slices.Contains(r.variables, "cdpath")
	return anywhere && kind.ends(pattern, tail(path.Clean(text)))
}

// tail gives the end of a relative path that is sure, wherever it begins.
func tail(clean string) string {
	for {
		rest, up := strings.CutPrefix(clean, "../")
		if !up {
			break
		}
		clean = rest
	}
	if clean == "." || clean == ".." {
		return ""
	}
	return clean
}

// globEnds is the ends of patterns of files and of words: those that begin with
// a slash, or with what stands for one.
func globEnds(pattern, tail string, slash bool) bool {
	if pattern[0] != '/' && pattern[0] != '*' || slash && pattern[0] == '*' && !strings.HasPrefix(pattern, "**") {
		return false
	}
	for i, c := range []byte(pattern) {
		// Whatever stands before i matches some directory.
		if (c == '/' || c == '*' || c == '?' && !slash) && match(pattern[i:], "/"+tail, slash) {
			return true
		}
	}
	return tail == ""
}

// programIs is globProgram for a clean path that has lost its ./ perhaps.
func programIs(pattern, program string) bool {
	return program[0] != '/' && globProgram(pattern, "./"+program) || strings.Contains(program, "/") && globProgram(pattern, program)
}

func programEnds(pattern, tail string) bool {
	if strings.Contains(pattern, "/") {
		return globEnds(pattern, tail, true)
	}
	directory, name := path.Split("/" + tail)
	return glob(pattern, name) && slices.ContainsFunc(plainDirs, func(d string) bool { return strings.HasSuffix(d, directory) })
}

// mayBeFile is mayBe for a file that is written or read.
func (r *reading) mayBeFile(pattern, text string) bool {
	if text == "" {
		return false
	}
	// **/x is x in the first directory too.
	return r.mayBe(filePaths, pattern, text) || strings.HasPrefix(pattern, "**") && match(pattern, "/"+path.Clean(text), true)
}

// mayBeWord is mayBe for an argument, and for a file that is read. In name=path
// and --name=path it is the rest that is a path.
func (r *reading) mayBeWord(pattern, text string) bool {
	if option, value, ok := strings.Cut(text, "="); ok && value != "" {
		o, p, ok := strings.Cut(pattern, "=")
		if ok && p != "" && glob(o, option) && r.mayBe(wordPaths, p, value) {
			return true
		}
	}
	if strings.HasPrefix(text, "-") { // an option, which is in no directory
		return glob(pattern, path.Clean(text))
	}
	return text != "" && r.mayBe(wordPaths, pattern, text)
}

// mayRunOthers gives the program that runs others which this one may be, by
// another way than it is written; "" for none.
func (r *reading) mayRunOthers(program string) string {
	if !strings.Contains(program, "/") || plainName(program) != "" {
		return ""
	}
	name := path.Base(path.Clean(program))
	if (wrapper(name) != nil || opaque[name] != "") && r.mayBe(programPaths, name, program) {
		return name
	}
	return ""
}
