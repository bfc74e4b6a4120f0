package sshterm

import (
	"strings"
	"unicode/utf8"
)

// What makes a nested shell tell marks is typed unseen: the service swallows its echo. A
// keeper that is a terminal has it on its screen all the same, so that a picture of that
// has to be without it. It is blanked there and nothing is moved: the cursor and
// everything else stay where the shell takes them to be.

// cell is a character of a row of a picture, or the end of the row.
type cell struct {
	before string // sequences in front of it
	char   string // empty at the end of the row
}

// cells takes a row apart, as capture-pane -e gives it: characters, and sequences for
// their looks (CSI, and OSC of links) between them.
func cells(row string) []cell {
	var all []cell
	from := 0 // of the sequences
	for at := 0; at < len(row); {
		if row[at] == '\x1b' {
			at += sequence(row[at:])
			continue
		}
		_, size := utf8.DecodeRuneInString(row[at:])
		all = append(all, cell{row[from:at], row[at : at+size]})
		at += size
		from = at
	}
	return append(all, cell{before: row[from:]})
}

// sequence gives the size of the escape sequence at the start of s.
func sequence(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= '@' && s[i] <= '~' {
				return i + 1
			}
		}
		return len(s)
	case ']':
		if i := strings.Index(s, "\x1b\\"); i > 0 {
			return i + 2
		}
		return len(s)
	case '(', ')': // a set of characters
		return min(3, len(s))
	}
	return 2
}

// hiddenLeast is the least of the end of a line by which it is known where its beginning
// is not there: it has been scrolled away, or a line editor of one row shows no more. It
// has some of the session's own id.
const hiddenLeast = 20

// topLeast is the same where nothing stands before it in the picture, which its beginning
// has been scrolled out of: the name of the file.
const topLeast = 7

// blank gives rows in which a line that was typed is blanked, wherever it stands; it may
// be wrapped.
func blank(rows []string, line string) []string {
	if len(line) < hiddenLeast {
		return rows
	}
	end := line[len(line)-hiddenLeast:]
	type place struct{ row, cell int }
	var (
		text   strings.Builder
		places []place // of each byte of the text
		all    = make([][]cell, len(rows))
	)
	for i, row := range rows {
		all[i] = cells(row)
		for j, c := range all[i] {
			text.WriteString(c.char)
			for range len(c.char) {
				places = append(places, place{i, j})
			}
		}
	}
	said := text.String()
	touched := map[int]bool{}
	wipe := func(places []place) {
		for _, p := range places {
			all[p.row][p.cell].char = " "
			touched[p.row] = true
		}
	}
	for n := hiddenLeast - 1; n >= topLeast; n-- {
		if strings.HasPrefix(said, line[len(line)-n:]) {
			wipe(places[:n])
			break
		}
	}
	for from := 0; ; {
		at := strings.Index(said[from:], end)
		if at < 0 {
			break
		}
		begin, over := from+at, from+at+len(end)
		for n := len(line) - len(end); n > 0 && begin > from && said[begin-1] == line[n-1]; n-- {
			begin--
		}
		wipe(places[begin:over])
		from = over
	}
	if len(touched) == 0 {
		return rows
	}
	clean := make([]string, len(rows))
	for i, row := range rows {
		if clean[i] = row; touched[i] {
			clean[i] = together(all[i])
		}
	}
	return clean
}

// together puts a row together. Of the blanks at its end the looks alone are left, which
// those of the next row may go on from.
func together(row []cell) string {
	last := len(row)
	for last > 0 && strings.Trim(row[last-1].char, " ") == "" {
		last--
	}
	var b strings.Builder
	for i, c := range row {
		b.WriteString(c.before)
		if i < last {
			b.WriteString(c.char)
		}
	}
	return b.String()
}
