package screen

// style has what follows look so.
func (w *writer) style(a attr) {
	if a.bg&flagExtended == 0 {
		a.ext = 0
	}
	if a == w.attr {
		return
	}
	e := w.s.tables.extended.values[a.ext]
	w.attr = a
	if odd(a, e) && !w.last {
		w.oddStyle(a, e)
		return
	}
	w.open(e.link)
	w.sgr(a, e)
}

// odd reports whether colors and flags do not belong to what is beyond them. DECRC leads to
// that: it brings back the former, and leaves the latter as it is.
func odd(a attr, e extended) bool {
	return a.bg&flagExtended != 0 == e.empty() || a.fg&flagUnderline != 0 != (e.style != 0)
}

// open opens a link, or closes the one that is open.
func (w *writer) open(number uint32) {
	if number == w.link {
		return
	}
	w.link = number
	w.hyperlink(w.s.tables.links.values[number])
}

func (w *writer) hyperlink(l link) {
	w.out = append(w.out, "\x1b]8;"...)
	if l.id != "" {
		w.out = append(append(w.out, "id="...), l.id...)
	}
	w.out = append(append(append(w.out, ';'), l.uri...), "\x1b\\"...)
}

// sgr sets everything but the link.
func (w *writer) sgr(a attr, e extended) {
	w.out = append(w.out, "\x1b[0"...)
	flag := func(set uint32, code string) {
		if set != 0 {
			w.out = append(append(w.out, ';'), code...)
		}
	}
	flag(a.fg&flagBold, "1")
	flag(a.bg&flagDim, "2")
	flag(a.bg&flagItalic, "3")
	switch e.style {
	case 0:
	case 1:
		w.out = append(w.out, ";4"...)
	default:
		w.printf(";4:%d", e.style)
	}
	flag(a.fg&flagBlink, "5")
	flag(a.fg&flagInverse, "7")
	flag(a.fg&flagInvisible, "8")
	flag(a.fg&flagStrikethrough, "9")
	flag(a.bg&flagOverline, "53")
	w.color(a.fg, 30)
	w.color(a.bg, 40)
	switch c := e.color; c & colorMode {
	case color256, color16:
		w.printf(";58:5:%d", c&0xff)
	case colorRGB:
		w.printf(";58:2::%d:%d:%d", c>>16&0xff, c>>8&0xff, c&0xff)
	}
	w.out = append(w.out, 'm')
	if a.bg&flagProtected != 0 {
		w.out = append(w.out, "\x1b[1\"q"...)
	}
}

// color adds a color to a sequence: that of the foreground where base is 30, of the
// background where it is 40.
func (w *writer) color(c uint32, base int) {
	n := int(c & 0xff)
	switch c & colorMode {
	case color16:
		if n >= 8 {
			n += 60 - 8
		}
		w.printf(";%d", base+n)
	case color256:
		w.printf(";%d;5;%d", base+8, n)
	case colorRGB:
		w.printf(";%d;2;%d;%d;%d", base+8, c>>16&0xff, c>>8&0xff, n)
	}
}

// oddStyle sets an odd style, the way that it comes about.
func (w *writer) oddStyle(a attr, e extended) {
	w.save(a.fg, a.bg)
	w.sgr(attr{}, e)
	w.open(e.link)
	w.out = append(w.out, "\x1b8"...)
	w.attr, w.unsaved = a, true
}

// save saves the cursor where it is, with those colors and flags.
func (w *writer) save(fg, bg uint32) {
	var e extended
	if fg&flagUnderline != 0 {
		e.style = 1
	}
	w.open(0)
	linked := bg&flagExtended != 0 && e.style == 0
	if linked {
		w.hyperlink(link{uri: "-"})
	}
	w.sgr(attr{fg: fg, bg: bg}, e)
	w.out = append(w.out, "\x1b7"...)
	if linked {
		w.hyperlink(link{})
	}
	w.attr = unknown
}

// unknown is no attribute, so that the next is set anew.
var unknown = attr{fg: ^uint32(0)}
