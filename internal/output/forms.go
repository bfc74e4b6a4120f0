package output

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// leastForm is how short a string that is looked for may be: shorter ones would
// be found in everything.
const leastForm = 4

// forms gives the value and its encodings, each once and sorted; what is shorter
// than leastForm is left out.
func forms(value string) []string {
	all := []string{value}
	if strings.Contains(value, "\n") {
		// A terminal writes CR LF for LF, but leaves a CR LF alone.
		lf := strings.ReplaceAll(value, "\r\n", "\n")
		all = append(all, strings.ReplaceAll(lf, "\n", "\r\n"))
	}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			all = append(all, base64Core(alphabet, value, before))
		}
	}
	query := url.QueryEscape(value)
	spaced := strings.ReplaceAll(query, "+", "%20")
	for _, escaped := range []string{query, spaced, component.Replace(spaced), url.PathEscape(value), percent(value)} {
		all = append(all, escaped, lowerHex(escaped))
	}
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < leastForm })
	slices.Sort(all)
	return slices.Compact(all)
}

// base64Core is what every encoding of a text has in common in which the value
// stands so many bytes behind a multiple of three: the digits all of whose bits
// are the value's.
func base64Core(alphabet *base64.Encoding, value string, before int) string {
	digits := alphabet.EncodeToString([]byte("\x00\x00"[:before] + value))
	first := (before*8 + 5) / 6
	last := (before + len(value)) * 8 / 6
	return digits[first:last]
}

// component undoes what JavaScript's encodeURIComponent does not escape.
var component = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*")

// percent escapes every byte.
func percent(value string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(value) {
		b.Write([]byte{'%', digits[value[i]>>4], digits[value[i]&15]})
	}
	return b.String()
}

// lowerHex gives an escaped value with the digits of its escapes in lower case.
func lowerHex(escaped string) string {
	b := []byte(escaped)
	for i := 0; i < len(b); i++ {
		if b[i] == '%' {
			copy(b[i:], strings.ToLower(string(b[i:i+3])))
			i += 2
		}
	}
	return string(b)
}
