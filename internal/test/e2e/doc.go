// Package e2e holds the tests of the whole: a real telexecd in its own process,
// real sshd hosts, and clients of every door. What is tested here is the promise
// to the user, not a room; testenv starts what is needed.
package e2e
