package output

import (
	"bytes"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The forms in which programs show how far they are. Each is recognised by more
// than its number: a percentage alone may be of anything.

// mayTell reports whether a line, trimmed, could be a meter. It is what most
// lines cost.
func mayTell(line []byte, over bool) bool {
	switch c := line[0]; {
	case c >= '0' && c <= '9' && (over || bytes.HasSuffix(line, []byte("."))), // curl; "… 3 not upgraded."
		c == '[', c == '#', // steps
		c == 'S', c == 'U', c == 'P', c == 'R', // Step, Setting up, Unpacking, Preparing, Processing, Removing
		c == 'p', c == 'd', // pmstatus, dlstatus
		c == 0xe2: // a bar of box drawings
		return true
	}
	return bytes.IndexByte(line, '%') >= 0 || bytes.Contains(line, []byte("ing ["))
}

// read gives what a line tells. One that is not complete may be told of only by
// forms that what follows cannot change; the others wait.
func (g *Gauge) read(s string, complete bool) (p portion, ok bool) {
	if complete {
		if p, ok = statusLine(s); ok {
			g.apt.status = true
			return p, true
		}
		if p, ok = g.apt.line(s); ok {
			return p, true
		}
		if p, ok = stepBegins(s); ok {
			return p, true
		}
		if p, ok = g.bracketed(s); ok {
			return p, true
		}
		if p, ok = g.make(s); ok {
			return p, true
		}
		if p, ok = layer(s); ok {
			return p, true
		}
	}
	if g.over {
		if p, ok = curlTable(s); ok {
			return p, true
		}
	}
	if p, ok = g.pip(s); ok {
		return p, true
	}
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return p, false
	}
	start, value, ok := numberBefore(s, at)
	if !ok {
		return p, false
	}
	before, after := strings.TrimSpace(s[:start]), s[at+1:]
	if of, ok := g.known(before, after, value); ok {
		return portion{of, value}, true
	}
	if complete {
		return g.growing(before, after, value)
	}
	return p, false
}

// statusLine reads what apt writes to its status descriptor:
// "pmstatus:PACKAGE:PERCENT:WHAT" and "dlstatus:NUMBER:PERCENT:WHAT".
func statusLine(s string) (p portion, ok bool) {
	if !strings.HasPrefix(s, "pmstatus:") && !strings.HasPrefix(s, "dlstatus:") {
		return p, false
	}
	parts := strings.SplitN(s[len("pmstatus:"):], ":", 3)
	if len(parts) < 3 {
		return p, false
	}
	if arch, rest, found := strings.Cut(parts[2], ":"); found && !decimal(parts[1]) && decimal(arch) {
		parts[1], parts[2] = arch, rest // "package:architecture"
	}
	value, err := strconv.ParseFloat(parts[1], 64)
	if err != nil || !decimal(parts[1]) || value > 100 {
		return p, false
	}
	return portion{label([]byte(parts[2])), value}, true
}

// decimal reports whether s is a plain number: digits, with at most one dot.
func decimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.") == "" && strings.Count(s, ".") <= 1 && s != "."
}

// aptRun is what apt said that it will do, and what dpkg has begun of it.
type aptRun struct {
	steps   int     // an installation has two, to unpack and to set up; a removal has one; 0: not known
	begun   int     // of them
	status  bool    // apt tells by its status descriptor, and better
	bar     bool    // apt draws its bar, whose percentage counts more than what is counted here
	percent float64 // what the bar said last
	doing   string  // the last step
}

// line reads the lines of apt and dpkg. As a line says what begins, the steps
// before it are what is done.
func (a *aptRun) line(s string) (p portion, ok bool) {
	if steps, ok := summary(s); ok {
		*a = aptRun{steps: steps}
		return p, false
	}
	step := false
	switch {
	case strings.HasPrefix(s, "Unpacking "), strings.HasPrefix(s, "Setting up "), strings.HasPrefix(s, "Removing "):
		step = true
	case strings.HasPrefix(s, "Preparing to unpack "), strings.HasPrefix(s, "Processing triggers for "):
	default:
		return p, false
	}
	if !strings.HasSuffix(s, "...") {
		return p, false
	}
	a.doing = label([]byte(s))
	if a.status || a.steps == 0 && !a.bar {
		return p, false
	}
	p = portion{a.doing, a.percent}
	if !a.bar {
		p.value = 100 * float64(min(a.begun, a.steps)) / float64(a.steps)
	}
	if step {
		a.begun++
	}
	return p, true
}

// summary reads "1 upgraded, 2 newly installed, 0 to remove and 3 not upgraded."
// and gives how many steps that is.
func summary(s string) (steps int, ok bool) {
	if !strings.HasSuffix(s, " not upgraded.") || !strings.Contains(s, " newly installed, ") {
		return 0, false
	}
	s = strings.Replace(strings.TrimSuffix(s, " not upgraded."), " and ", ", ", 1)
	for part := range strings.SplitSeq(s, ", ") {
		count, what, _ := strings.Cut(part, " ")
		n, err := strconv.ParseUint(count, 10, 16)
		if err != nil {
			return 0, false
		}
		switch what {
		case "upgraded", "newly installed", "reinstalled", "downgraded":
			steps += 2 * int(n)
		case "to remove":
			steps += int(n)
		case "": // those that stay as they are
		default:
			return 0, false
		}
	}
	return steps, true
}

// stepBegins reads "Step 3/9 : RUN make" and "#8 [3/9] RUN make", as docker build
// writes them when a step begins.
func stepBegins(s string) (p portion, ok bool) {
	var of string
	var n, m int
	if rest, found := strings.CutPrefix(s, "Step "); found {
		var fraction string
		if fraction, of, found = strings.Cut(rest, " : "); !found {
			return p, false
		}
		n, m, ok = ratio(fraction)
	} else if rest, found := strings.CutPrefix(s, "#"); found {
		number, rest, found := strings.Cut(rest, " [")
		if _, err := strconv.ParseUint(number, 10, 16); err != nil || !found {
			return p, false
		}
		var fraction string
		if fraction, of, found = strings.Cut(rest, "] "); !found {
			return p, false
		}
		n, m, ok = ratio(fraction[strings.LastIndexByte(fraction, ' ')+1:])
	}
	if of = label([]byte(of)); !ok || of == "" {
		return p, false
	}
	return portion{of, 100 * float64(n-1) / float64(m)}, true
}

// bracketed reads "[3/9] CC main.o", as ninja and others count. One such line may
// be anything; the second of the same run, further on, shows that it counts.
func (g *Gauge) bracketed(s string) (p portion, ok bool) {
	rest, found := strings.CutPrefix(s, "[")
	if !found {
		return p, false
	}
	fraction, of, found := strings.Cut(rest, "] ")
	if !found {
		return p, false
	}
	n, m, ok := ratio(strings.TrimSpace(fraction))
	if !ok {
		return p, false
	}
	last := g.steps
	g.steps = [2]int{n, m}
	name := label([]byte(of))
	if last[1] != m || n <= last[0] || name == "" || strings.HasSuffix(of, "?") {
		return p, false
	}
	done := n
	if strings.HasSuffix(of, "...") { // yarn's way: what is named begins
		done--
	}
	return portion{name, 100 * float64(done) / float64(m)}, true
}

// make reads "[ 42%] Building C object main.o", as the makefiles of CMake write
// it. The second of them tells.
func (g *Gauge) make(s string) (p portion, ok bool) {
	number, of, found := strings.Cut(s, "%] ")
	rest, opened := strings.CutPrefix(number, "[")
	rest = strings.TrimLeft(rest, " ")
	if !found || !opened || len(rest) > 3 || strings.Trim(rest, "0123456789") != "" {
		return p, false
	}
	value, err := strconv.ParseFloat(rest, 64)
	if err != nil || value > 100 {
		return p, false
	}
	last := g.grew
	g.grew, g.taken = portion{"[%]", value}, false
	p = portion{label([]byte(of)), value}
	return p, last.of == "[%]" && value >= last.value
}

// ratio reads "3/9", of at least 2.
func ratio(s string) (n, m int, ok bool) {
	left, right, found := strings.Cut(s, "/")
	if !found {
		return 0, 0, false
	}
	a, err1 := strconv.ParseUint(left, 10, 24)
	b, err2 := strconv.ParseUint(right, 10, 24)
	return int(a), int(b), err1 == nil && err2 == nil && a >= 1 && a <= b && b >= 2
}

// curlTable reads a row of curl's meter:
//
//	45 2929k   45 1318k    0     0  1527k      0  0:00:01 --:--:--  0:00:01 1527k
//
// Where the total is not known it says 0, which is no percentage.
func curlTable(s string) (p portion, ok bool) {
	f := strings.Fields(s)
	if len(f) < 12 || f[1] == "0" {
		return p, false
	}
	for _, i := range []int{0, 2, 4} {
		if n, err := strconv.ParseUint(f[i], 10, 8); err != nil || n > 100 {
			return p, false
		}
	}
	for _, i := range []int{8, 9, 10} {
		if strings.Trim(f[i], "0123456789:-dh") != "" || !strings.ContainsAny(f[i], ":d") {
			return p, false
		}
	}
	n, _ := strconv.ParseUint(f[0], 10, 8)
	return portion{"", float64(n)}, true
}

// pip reads a bar that has a ratio of sizes instead of a percentage, and is about
// the line before:
//
//	━━━━━━╸━━━━━━━━━━━━ 0.8/2.5 MB 1.9 MB/s eta 0:00:01
func (g *Gauge) pip(s string) (p portion, ok bool) {
	rest := strings.TrimLeft(s, "━╸╺")
	if len(s)-len(rest) < 10*len("━") {
		return p, false
	}
	f := strings.Fields(rest)
	if len(f) < 3 || scale(f[1]) == 0 {
		return p, false
	}
	p.value, ok = sizes(f[0], f[1])
	p.of = label(g.title)
	return p, ok
}

// layer reads how far docker is with one layer:
//
//	a1b2c3d4e5f6: Downloading [====>      ]  1.2MB/3.4MB
func layer(s string) (p portion, ok bool) {
	name, rest, found := strings.Cut(s, " [")
	if !found || !strings.HasSuffix(name, "ing") || !strings.Contains(name, ": ") {
		return p, false
	}
	bar, fraction, found := strings.Cut(rest, "]")
	if !found || len(bar) < 10 || strings.Trim(bar, "=> ") != "" {
		return p, false
	}
	fraction = strings.TrimSpace(fraction)
	number := strings.TrimRight(fraction, units)
	if number == fraction {
		return p, false
	}
	p.value, ok = sizes(number, fraction[len(number):])
	p.of = label([]byte(name))
	return p, ok
}

// sizes gives the percentage that "1.2MB/3.4" is, where the unit of the second is
// given, which is also the first's if that has none.
func sizes(s, unit string) (value float64, ok bool) {
	left, right, _ := strings.Cut(s, "/")
	number := strings.TrimRight(left, units)
	whole := scale(unit)
	have := whole
	if number != left {
		have = scale(left[len(number):])
	}
	if !decimal(number) || !decimal(right) || have == 0 || whole == 0 {
		return 0, false
	}
	a, _ := strconv.ParseFloat(number, 64) // digits
	b, _ := strconv.ParseFloat(right, 64)
	value = 100 * a / b * (have / whole)
	return value, b > 0 && value <= 100
}

// units has the letters of all units.
const units = "kKMGTiB"

// scale is how many bytes a unit has, and 0 where it is none.
func scale(unit string) float64 {
	switch unit {
	case "B", "bytes":
		return 1
	case "kB", "KB":
		return 1e3
	case "MB":
		return 1e6
	case "GB":
		return 1e9
	case "TB":
		return 1e12
	case "KiB":
		return 1 << 10
	case "MiB":
		return 1 << 20
	case "GiB":
		return 1 << 30
	}
	return 0
}

// numberBefore reads the number in front of a percent sign, which stands by
// itself: neither "v2.100%" nor "%20%" has one. start is where it begins.
func numberBefore(s string, at int) (start int, value float64, ok bool) {
	end := at
	if end > 0 && s[end-1] == ' ' {
		end--
	}
	start = end
	for start > 0 && (s[start-1] >= '0' && s[start-1] <= '9' || s[start-1] == '.') {
		start--
	}
	// Dots before it belong to the words: "Reading package lists...42%".
	for start < end && s[start] == '.' {
		start++
	}
	number := s[start:end]
	if !decimal(number) || len(number) > 8 || number[len(number)-1] == '.' {
		return 0, 0, false
	}
	if start > 0 && !strings.ContainsRune(" \t[(|:=#.", rune(s[start-1])) {
		return 0, 0, false
	}
	value, err := strconv.ParseFloat(number, 64)
	return start, value, err == nil && value <= 100
}

// known tells the forms of programs that are known by what stands around their
// percentage. None depends on what may still follow.
func (g *Gauge) known(before, after string, value float64) (of string, ok bool) {
	switch {
	case before != "" && strings.Trim(before, "#") == "": // curl -#, whatever follows
		return "", g.over

	case before == "Progress: [" && strings.HasPrefix(after, "]"): // apt's bar at the foot of a terminal
		g.apt.bar, g.apt.percent = true, value
		return g.apt.doing, !g.apt.status

	case before == "" && g.over && strings.HasPrefix(after, " ["): // apt's downloads
		return aptItem(after[2:])

	case strings.HasSuffix(before, ":") && strings.HasPrefix(after, " ("): // git
		fraction, _, found := strings.Cut(after[2:], ")")
		n, m, valid := ratio(fraction)
		before = strings.TrimPrefix(before, "remote: ")
		doing, gauge := verdict(before)
		return label([]byte(before)), found && !gauge && (doing || g.over) && (valid && int(value) == 100*n/m || fraction == "1/1")

	case strings.HasPrefix(after, "|"): // tqdm and its like
		bar, rest, _ := strings.Cut(after[1:], "|")
		count, _, found := strings.Cut(strings.TrimLeft(rest, " "), " [")
		slash := strings.IndexByte(count, '/')
		return label([]byte(before)), found && slash > 0 && count[0] >= '0' && count[0] <= '9' && strings.Trim(bar, "█▏▎▍▌▋▊▉#=>-0123456789 ") == ""

	case strings.HasPrefix(after, "["): // wget's bar
		bar, _, found := strings.Cut(after[1:], "]")
		return label([]byte(before)), found && g.over && len(bar) >= 5 && strings.Trim(bar, "=>+ ") == ""

	case before == "":

	case strings.HasSuffix(before, ".") && wgetDots(before): // and its dots
		_, _, timed := strings.Cut(strings.TrimSpace(after), " ") // "1.2M 3s"; at the end "1.2M=2s"
		return "", timed || strings.Contains(after, "=")

	case strings.Trim(before, "0123456789,.KMGT") == "" && before[0] >= '0' && before[0] <= '9': // rsync
		f := strings.Fields(after)
		return label(g.title), g.over && len(f) >= 2 && strings.HasSuffix(f[0], "B/s") && strings.Count(f[1], ":") >= 2
	}
	return "", false
}

// aptItem reads what apt says between brackets about the first thing that it
// gets: "3 libfoo 75.0 kB/1516 kB 5%", "Working", "Waiting for headers".
func aptItem(s string) (of string, ok bool) {
	item, _, found := strings.Cut(s, "]")
	if !found {
		return "", false
	}
	f := strings.Fields(item)
	switch {
	case len(f) >= 2 && strings.Trim(f[0], "0123456789") == "":
		return label([]byte("Downloading " + f[1])), true
	case item == "Working", strings.HasPrefix(item, "Waiting for "), strings.HasPrefix(item, "Connect"):
		return label([]byte(item)), true
	}
	return "", false
}

// wgetDots reports whether a line begins as "  50K .......... .......... ".
func wgetDots(before string) bool {
	size, dots, found := strings.Cut(before, "K ")
	return found && decimal(size) && strings.Trim(dots, ". ,") == ""
}

// growing tells a percentage of no known form, once it has grown. On a line of its
// own also its words must say that something is being done; on one that is
// drawn over and over, what follows it must be what follows a meter.
func (g *Gauge) growing(before, after string, value float64) (p portion, ok bool) {
	after = strings.TrimSpace(after)
	if strings.IndexByte(after, '%') >= 0 || strings.HasPrefix(before, "(Reading database") {
		return p, false // which dpkg does on the way
	}
	p = portion{label([]byte(before)), value}
	doing, gauge := verdict(before)
	done := after == "done" || strings.HasPrefix(strings.TrimSuffix(after, "."), "complete")
	switch {
	case gauge:
		return p, false
	case g.over:
		if after != "" && !done && !continues(after) {
			return p, false
		}
	case !doing && !done || after != "" && !done:
		return p, false
	}
	of := digitless(p.of) + "%" // never what it is before the first
	last := g.grew
	g.grew = portion{of, value}
	if last.of != of {
		g.taken = false
		return p, false
	}
	g.taken = value > last.value || g.taken && value == last.value
	return p, g.taken
}

// continues reports whether a meter goes on like this behind its percentage.
func continues(after string) bool {
	for _, prefix := range []string{"(", ",", "|", "of ", "eta ", "ETA ", "ETA:"} {
		if strings.HasPrefix(after, prefix) {
			return true
		}
	}
	return false
}

// Words that stand beside percentages which are no progress.
var gauges = map[string]bool{
	"accuracy": true, "at": true, "average": true, "avg": true, "battery": true, "confidence": true, "coverage": true, "cpu": true,
	"disk": true, "error": true, "errors": true, "free": true, "hit": true, "humidity": true, "idle": true, "left": true, "load": true,
	"loss": true, "mem": true, "memory": true, "quota": true, "ram": true, "rate": true, "ratio": true, "remaining": true, "rising": true, "score": true,
	"similarity": true, "swap": true, "usage": true, "use": true, "used": true, "utilisation": true, "utilization": true, "volume": true, "warning": true,
}

// verdict tells what the words beside a percentage say: that something is being
// done (the first is "Downloading", or one is "progress"), or that it is a gauge.
func verdict(words string) (doing, gauge bool) {
	first := true
	for w := range strings.FieldsFuncSeq(words, func(r rune) bool { return !unicode.IsLetter(r) }) {
		w = strings.ToLower(w)
		gauge = gauge || gauges[w]
		doing = doing || w == "progress" || first && len(w) > 4 && strings.HasSuffix(w, "ing")
		first = false
	}
	return doing, gauge
}

// digitless is a label without its digits: what counts along is the same label.
func digitless(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// label makes of what a program says a label: one line of valid UTF-8 of at most
// mostLabel bytes, with nothing in it that cannot be seen, and without the dots
// and brackets that lead to the number.
func label(words []byte) string {
	words = words[:min(len(words), 4*mostLabel)]
	var s strings.Builder
	space := false
	for len(words) > 0 {
		r, size := utf8.DecodeRune(words)
		words = words[size:]
		switch {
		case unicode.IsSpace(r):
			space = s.Len() > 0
			continue
		case !visible(r) || r == utf8.RuneError:
			continue
		}
		gap := 0
		if space {
			gap = 1
		}
		if s.Len()+gap+size > mostLabel {
			break
		}
		if space {
			s.WriteByte(' ')
			space = false
		}
		s.WriteRune(r)
	}
	return strings.TrimRight(strings.TrimLeft(s.String(), "([|#=> "), ".…:-=([| ")
}

// visible reports whether r is to be seen, which some letters, marks and symbols are
// not: fillers, selectors of variants, the empty pattern of Braille.
func visible(r rune) bool {
	return unicode.IsPrint(r) && r != '\u2800' &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
