package main

import "testing"

func TestEscapes(t *testing.T) {
	for _, test := range []struct{ in, keys, wants string }{
		{"ls\r", "ls\r", ""},
		{"~.", "", "."},
		{"x~.", "x~.", ""},
		{"x\r~k~r", "x\r", "kr"},
		{"\r~~~.", "\r~~.", ""},
		{"\r~x~.", "\r~x~.", ""},
		{"\r~\r~?", "\r~\r", "?"},
		{"\x03~.", "\x03", "."},
		{"\r~w~.", "\r", "w."},
		{"\r~kls\r~r", "\rls\r", "kr"},
		{"\r\x1b[200~a\r~.\r~~\x1b[201~~.\r~.", "\r\x1b[200~a\r~.\r~~\x1b[201~~.\r", "."},
		{"\x1b\x1b[200~\r~.\x1b[20\x1b[201~\r~k", "\x1b\x1b[200~\r~.\x1b[20\x1b[201~\r", "k"},
		{"\x1b[3~\r~.", "\x1b[3~\r", "."},
	} {
		for _, size := range []int{1, len(test.in)} {
			var e escapes
			keys, wants := "", ""
			for p := []byte(test.in); len(p) > 0; {
				n := min(size, len(p))
				for rest := p[:n]; len(rest) > 0; {
					var k []byte
					var w byte
					k, w, rest = e.scan(rest)
					if keys += string(k); w != 0 {
						wants += string(w)
					}
				}
				p = p[n:]
			}
			if keys != test.keys || wants != test.wants {
				t.Errorf("%q, %d at a time: %q and %q", test.in, size, keys, wants)
			}
		}
	}
}
