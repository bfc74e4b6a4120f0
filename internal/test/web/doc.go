// Package web tests the web UI in a real browser: Chromium, driven by
// playwright-core, before a real telexecd with a real sshd behind it.
//
//	make test PKG=./internal/test/web
//	make bench-web     the figures, on more output
//	make screenshots   every page, into bin/screenshots
//
// What is to hold is told by the specs, specs/*.test.mjs, which node's own test
// runner runs; each has a service of its own, so that one may kill it:
//
//	spec (node) ── playwright ─▶ Chromium ─▶ wire ─▶ telexecd ─▶ sshd
//	  └── control: restart, kill -9, cut the wire, run by another door ──┘
//
// The browser is one for all specs, which open contexts of their own in it; the
// wire is a TCP proxy that can be cut, silenced, slowed, and closed to WebSockets
// alone. A spec asks for such things over the control server, a loopback HTTP
// server with a token.
//
// Times are measured in the page. Without -web.strict a spec prints them and
// asserts only what holds on a busy machine with the race detector too.
//
// It needs chromium, node and what npm ci installs beside package.json; without
// them the tests are skipped, and fail where CI=true.
package web
