// Package completion tells when a command in a terminal has ended, and how.
//
// Where the shell can tell it, it does: by marks in its output, OSC 133 as other
// terminals have it, with a nonce that no output can guess:
//
//	ESC ] 133 ; A ; p=PID ; k=NONCE BEL              a prompt begins
//	ESC ] 133 ; B ; p=PID ; k=NONCE BEL              it ends here: the shell reads
//	ESC ] 133 ; C ; line=LINE ; p=PID ; k=NONCE BEL  a command starts; LINE may be empty or missing
//	ESC ] 133 ; D ; CODE ; p=PID ; k=NONCE BEL       it has ended; with ;a a prompt begins, too
//	ESC ] 133 ; E ; CODE ; p=PID ; k=NONCE BEL       the same, unless a C comes before the next D or a pause
//	ESC ] 133 ; P ; pid=PID ; shell=KIND ; level=N ; starts=0|1 ; k=NONCE BEL
//	                                                 a shell introduces itself
//
// In LINE every ; % and control character is percent-encoded. p is the pid of the shell
// that speaks, and ESC \ may stand for BEL. A Parser takes these out of the output and
// gives them as Events; whatever else is in it, also other OSC 133, passes untouched.
//
//   - Integrate says how a shell is started so that it tells marks, Nested how one that
//     was started in it learns to. The scripts are in the folder shell.
//   - Type gives the keys that make a shell run a text as one command.
//   - Prompts recognises a prompt by its looks, where there are no marks: on devices, and
//     in shells inside programs.
//
// # What a mark proves
//
// Nothing that a command prints can end it: the nonce has 128 random bits and is in no
// environment, no argument and no history. It is in variables of the shell that are not
// exported, and in files that only the account can read, of which those for the start
// remove themselves. So the marks are as trustworthy as the shell: a program that runs
// as the same user may read those files or the memory of the shell, as it may replace
// the shell; a script that is read into the shell itself (with . or eval), and who types
// there, may have the variables shown.
package completion

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Silence is after what time without output a command is taken to have ended where
// there are neither marks nor a prompt that is known.
const Silence = 2 * time.Second

// NewNonce gives the nonce of one session: 32 hexadecimal digits nobody can guess.
func NewNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
