// Package sdk runs the tests of the TypeScript SDK, which are in sdk/typescript/test,
// against a real telexecd with a real sshd behind it.
//
//	node or Chromium ── proxy of the test, on which things go wrong ──▶ telexecd ─▶ sshd
//	         └ "restart", "kill" ── HTTP ─▶ this test
//
// What is tested is the package as npm would install it: packed, and laid where a
// program of its user would have it. Everything is made in a directory of the test;
// nothing is written to the tree. Where there is no node, no node_modules, or no
// Chromium for those in a browser, the tests are skipped; in continuous integration
// (CI=true) they fail instead.
package sdk
