package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/rpcserver"
)

// The terminal of a session is a WebSocket of its own kind: no envelope is around its
// messages, and they are those of a call that REST has not.

const terminalIntro = `Opens a WebSocket (RFC 6455, HTTP/1.1) that is the terminal of the session. Each message of the client is a telexec.v1.AttachRequest,
each of the service a telexec.v1.AttachResponse (both are among the schemas, with examples): text with JSON under the subprotocol telexec.v1.json, which is also
spoken where none is named, or binary with the wire format of protobuf under telexec.v1.proto. Credentials are shown as for GET /v1/socket.

The first message is start, and no other is; it may leave the session out:

~~~json
%s
~~~

The service answers attached, then the screen as it is, then output as it comes, and whatever changes. What is typed is sent as it is:

~~~json
%s
~~~

The service sends at most so many bytes beyond what was acknowledged (start.windowBytes); whoever is left behind by more than the session keeps gets the screen
anew. What the viewer may not do is refused, and the terminal goes on. Losing the connection never touches the session: attach again, with start.fromOffset behind the last byte that arrived.
The last message is ended, where the session ends, or error; then the service closes, with the codes of GET /v1/socket.`

// terminalMessages are the messages of terminals that no path of REST takes or gives.
var terminalMessages = []proto.Message{
	&pb.AttachRequest{}, &pb.AttachStart{}, &pb.TerminalSize{}, &pb.KeyboardRequest{},
	&pb.AttachResponse{}, &pb.Attached{}, &pb.Screen{}, &pb.ScreenCommand{}, &pb.TerminalOutput{}, &pb.SessionCommand{}, &pb.Typed{}, &pb.AttachHeartbeat{},
}

// terminalNotes say what the fields of those messages mean.
var terminalNotes = map[string]string{
	"telexec.v1.AttachRequest":              "AttachRequest is what a viewer of a terminal says: exactly one of these.",
	"telexec.v1.AttachRequest.start":        "The first one, and no other.",
	"telexec.v1.AttachRequest.input":        "Typed bytes, at most 64 KiB, as a terminal sends them.",
	"telexec.v1.AttachRequest.resize":       "The viewer's window has another size. The terminal takes the size of whoever has the keyboard, else of the writer who told last.",
	"telexec.v1.AttachRequest.acknowledged": "All output before this offset was taken.",
	"telexec.v1.AttachRequest.keyboard":     "About the keyboard.",

	"telexec.v1.AttachStart":                 "AttachStart says to what to attach, and how.",
	"telexec.v1.AttachStart.session":         "Name or id of the session; empty, or as in the path.",
	"telexec.v1.AttachStart.role":            "What the viewer wants to do; unset: WRITER where it may type, else OBSERVER.",
	"telexec.v1.AttachStart.size":            "Size of the viewer's window; unset: it has none, and takes what there is.",
	"telexec.v1.AttachStart.fromOffset":      "Go on at this offset where its bytes are still there, with what is to be told of commands from there on; else, and where it is unset, the screen comes first.",
	"telexec.v1.AttachStart.windowBytes":     "How many bytes may be on their way, 16 KiB to 2 MiB; 0 means 256 KiB.",
	"telexec.v1.AttachStart.scrollbackLines": "Lines of scrollback to send with the screen, 0 to 10,000; unset: 1,000.",
	"telexec.v1.AttachStart.label":           "What the client calls itself, for the others to see.",

	"telexec.v1.TerminalSize":         "TerminalSize is a size in characters.",
	"telexec.v1.TerminalSize.columns": "Width, 2 to 1000.",
	"telexec.v1.TerminalSize.rows":    "Height, 2 to 500.",

	"telexec.v1.KeyboardAction":         "KeyboardAction is what a viewer wants to do with the keyboard: take it, also from somebody who has it; release it, so that anybody may type; or hand it over to another writer.",
	"telexec.v1.KeyboardRequest":        "KeyboardRequest is about the keyboard. Who types while nobody has it gets it, and keeps it for 10 s after the last key; who has taken it, or was given it, keeps it until it is released, handed over or taken, or its holder has left.",
	"telexec.v1.KeyboardRequest.action": "What to do.",
	"telexec.v1.KeyboardRequest.viewer": "Viewer.id of the other writer, to hand it over to.",

	"telexec.v1.AttachResponse":           "AttachResponse is what the service says to a viewer of a terminal: exactly one of these, and when.",
	"telexec.v1.AttachResponse.time":      "When the service sent it.",
	"telexec.v1.AttachResponse.attached":  "The first one.",
	"telexec.v1.AttachResponse.screen":    "The screen as it is: at the beginning, and after a gap.",
	"telexec.v1.AttachResponse.output":    "Output. It follows exactly what was sent before.",
	"telexec.v1.AttachResponse.session":   "The session has changed: who is here, who has the keyboard, size, title, connection.",
	"telexec.v1.AttachResponse.command":   "A command was begun or has ended. It comes at its place in the output; an end whose outcome is not stored yet comes a moment later.",
	"telexec.v1.AttachResponse.typed":     "Somebody else typed; at most four times a second.",
	"telexec.v1.AttachResponse.refused":   "What the viewer asked for was not done: why. It goes on all the same.",
	"telexec.v1.AttachResponse.ended":     "The session is over. The last one.",
	"telexec.v1.AttachResponse.heartbeat": "Nothing happened for 15 s; the connection is alive.",
	"telexec.v1.AttachResponse.error":     "Why the terminal is over, where the session is not. The last one.",

	"telexec.v1.Attached":         "Attached is the beginning of a terminal.",
	"telexec.v1.Attached.viewer":  "The viewer's own Viewer.id.",
	"telexec.v1.Attached.role":    "What it may do.",
	"telexec.v1.Attached.session": "The session.",
	"telexec.v1.Attached.resumed": "The output goes on at start.fromOffset; no screen is sent.",
	"telexec.v1.Attached.offset":  "Where the output goes on.",

	"telexec.v1.Screen":           "Screen is the terminal as it is at one moment.",
	"telexec.v1.Screen.offset":    "Offset of the first byte of output behind it.",
	"telexec.v1.Screen.data":      "What a terminal of this size, newly reset, must be given to show the scrollback and the screen and to be in the same modes. It may come in several pieces.",
	"telexec.v1.Screen.columns":   "Width in characters.",
	"telexec.v1.Screen.rows":      "Height in characters.",
	"telexec.v1.Screen.commands":  "Commands that were begun in its lines; the first piece has them for all pieces.",
	"telexec.v1.Screen.continued": "This is not the first piece: data goes on. No piece says that it is the last: the screen is there whole when output, session, typed, heartbeat or ended follows, and whoever has lost the connection before that attaches without fromOffset.",

	"telexec.v1.ScreenCommand":           "ScreenCommand tells where a command stands on a Screen.",
	"telexec.v1.ScreenCommand.commandId": "The command's id.",
	"telexec.v1.ScreenCommand.line":      "Line that it was begun in; 0 is the first line of the scrollback that was sent.",

	"telexec.v1.TerminalOutput":        "TerminalOutput is a run of bytes of a terminal.",
	"telexec.v1.TerminalOutput.offset": "Offset of the first byte from the beginning of the session.",
	"telexec.v1.TerminalOutput.data":   "The bytes, at most 64 KiB.",

	"telexec.v1.SessionCommand":         "SessionCommand tells of a command in a session, at its place in the output.",
	"telexec.v1.SessionCommand.command": "The command as it is: it may have ended already where its beginning is told.",
	"telexec.v1.SessionCommand.offset":  "Offset at which its output begins, or at which it ended.",

	"telexec.v1.Typed":        "Typed tells who typed.",
	"telexec.v1.Typed.viewer": "Viewer.id; empty for one who is not attached.",
	"telexec.v1.Typed.actor":  "Who, and through which door.",

	"telexec.v1.AttachHeartbeat": "AttachHeartbeat shows that the connection is alive.",
}

// terminalExamples gives examples of the messages, by the name of their type.
func terminalExamples() map[string][]proto.Message {
	session := exampleSession()
	said := func(r *pb.AttachResponse) *pb.AttachResponse {
		r.Time = timestamppb.New(exampleStart.Add(2 * time.Second))
		return r
	}
	_, gone := rpcserver.Problem(fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down").
		WithHint("Attach again in a moment").WithRetry(time.Second))
	return map[string][]proto.Message{
		"telexec.v1.AttachRequest": {
			&pb.AttachRequest{Request: &pb.AttachRequest_Start{Start: &pb.AttachStart{Size: &pb.TerminalSize{Columns: 120, Rows: 40}, Label: "Firefox"}}},
			&pb.AttachRequest{Request: &pb.AttachRequest_Input{Input: []byte("ls -l\r")}},
			&pb.AttachRequest{Request: &pb.AttachRequest_Acknowledged{Acknowledged: session.GetOutputOffset()}},
			&pb.AttachRequest{Request: &pb.AttachRequest_Resize{Resize: &pb.TerminalSize{Columns: 100, Rows: 30}}},
			&pb.AttachRequest{Request: &pb.AttachRequest_Keyboard{Keyboard: &pb.KeyboardRequest{Action: pb.KeyboardAction_KEYBOARD_ACTION_TAKE}}},
		},
		"telexec.v1.AttachResponse": {
			said(&pb.AttachResponse{Response: &pb.AttachResponse_Attached{Attached: &pb.Attached{
				Viewer: "v1", Role: pb.ViewerRole_VIEWER_ROLE_WRITER, Session: session, Offset: 1834,
			}}}),
			said(&pb.AttachResponse{Response: &pb.AttachResponse_Screen{Screen: &pb.Screen{Offset: 1834, Data: []byte("deploy@web1:~$ "), Columns: 120, Rows: 40}}}),
			said(&pb.AttachResponse{Response: &pb.AttachResponse_Output{Output: &pb.TerminalOutput{Offset: 1834, Data: []byte("ls -l\r\n")}}}),
			said(&pb.AttachResponse{Response: &pb.AttachResponse_Refused{Refused: &pb.Failure{
				Reason: fault.ReasonKeyboardTaken, Message: "bob has the keyboard", Hint: "Take it, or wait until it is released",
			}}}),
			said(&pb.AttachResponse{Response: &pb.AttachResponse_Error{Error: gone}}),
		},
	}
}

// addTerminal adds the terminal of a session to the paths, and its messages to the
// schemas.
func addTerminal(paths, schemas object) error {
	examples := terminalExamples()
	if err := addSchemas(schemas, terminalMessages, examples, terminalNotes); err != nil {
		return err
	}
	actions := pb.KeyboardAction(0).Descriptor()
	var names []any
	for i := range actions.Values().Len() {
		names = append(names, string(actions.Values().Get(i).Name()))
	}
	schemas[string(actions.FullName())] = object{"type": "string", "enum": names, "description": terminalNotes[string(actions.FullName())]}

	screen, err := find(paths, "/v1/sessions/{session}/screen")
	if err != nil {
		return err
	}
	sample := func(m proto.Message) string {
		text, err := encode(example(m))
		if err != nil {
			panic(fmt.Sprintf("example of %T: %v", m, err)) // it comes out of JSON
		}
		return strings.TrimSpace(string(text))
	}
	says := examples["telexec.v1.AttachRequest"]
	op := socket("WebSocket_Attach", "Be at the terminal of a session", without(list(screen["parameters"]), "scrollbackLines"),
		fmt.Sprintf(terminalIntro, sample(says[0]), sample(says[1])), http.StatusNotFound)
	op["responses"].(object)["101"] = object{"description": "The connection is a WebSocket now. Its messages are AttachRequest and AttachResponse."}
	paths["/v1/sessions/{session}/terminal"] = object{"get": op}
	return nil
}
