package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// stepList shows the steps of a task on a terminal, and draws them again where they stand
// whenever something has changed:
//
//	roll out version 5
//	running  █████████░░░░░░░░░░░  47 %  1 min 20 s  01J8Z3K4M5N6P7Q8R9S0T1V2W3
//	  ✓ drain    web1            2.1 s
//	  ▸ upgrade  web1 web2 web3  ██████░░░░░░  52 %  1 of 3 hosts  12 s
//	  ? restart  web1            waits for approval: telexec approvals show 01J8Z3K4M5N6P7Q8R9S0T1V2W4
//	  · check    web1
//
// The sequences are those of ECMA-48: CUU, EL, ED; and DECAWM, so that what is too long does
// not become two lines.
type stepList struct {
	out *printer

	mu        sync.Mutex // guards what follows
	task      *telexecv1.Task
	approvals []*telexecv1.Approval
	footer    string
	drawn     int // lines on the screen that are the list's
}

// show takes the task as it is.
func (l *stepList) show(t *telexecv1.Task, approvals []*telexecv1.Approval) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.task, l.approvals = t, approvals
}

// take takes an event, and reports whether that is all there is to know of it.
func (l *stepList) take(e *telexecv1.TaskEvent) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e == nil:
		return true
	case e.GetType() == "step_progress" && int(e.GetStepIndex()) < len(l.task.GetSteps()):
		l.task = proto.CloneOf(l.task)
		l.task.Percent, l.task.Steps[e.GetStepIndex()].Percent = e.GetTaskPercent(), e.GetPercent()
		return true
	case e.GetType() == "queue_update":
		l.task = proto.CloneOf(l.task)
		l.task.Queue = e.GetQueue()
		return true
	}
	return false
}

// remark shows a line below the list until another takes its place.
func (l *stepList) remark(text string) {
	l.mu.Lock()
	l.footer = text
	l.mu.Unlock()
	if text != "" {
		_ = l.draw() // where nobody sees it, the next one fails too
	}
}

// draw puts the list as it is in the place of the one before.
func (l *stepList) draw() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	width, height := l.out.width, 24
	if fd, ok := terminal(l.out.stdout); ok {
		if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
			width, height = w, h
		}
	}
	lines := l.lines(width, height)
	var b strings.Builder
	b.WriteString("\x1b[?7l")
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", l.drawn)
	}
	for _, line := range lines {
		b.WriteString("\r" + line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J\x1b[?7h")
	l.drawn = len(lines)
	_, err := io.WriteString(l.out.stdout, b.String())
	return err
}

// Widths of columns, and of bars.
const (
	stepNameMost  = 28
	stepHostsMost = 28
	taskBar       = 20
	stepBar       = 12
)

// lines gives the list for a terminal of that size. mu is held.
func (l *stepList) lines(width, height int) []string {
	t := l.task
	text, _, _ := strings.Cut(t.GetTask(), "\n")
	lines := []string{l.out.paint(cut(printable(text), max(width, 2)), bold), l.head(width)}
	nameWidth, hostsWidth := 0, 0
	for _, s := range t.GetSteps() {
		nameWidth = max(nameWidth, min(utf8.RuneCountInString(printable(s.GetName())), stepNameMost))
		hostsWidth = max(hostsWidth, min(utf8.RuneCountInString(printable(stepHosts(s))), stepHostsMost))
	}
	from, to := window(len(t.GetSteps()), int(t.GetCurrentStep()), max(height-len(lines)-2, 3))
	if from > 0 {
		lines = append(lines, l.out.paint(fmt.Sprintf("  … %d before", from), grey))
	}
	for _, s := range t.GetSteps()[from:to] {
		mark, parts := l.step(s)
		name, hosts := cut(printable(s.GetName()), stepNameMost), cut(printable(stepHosts(s)), stepHostsMost)
		row := []cell{mark, plainCell(padded(name, nameWidth) + "  " + padded(hosts, hostsWidth))}
		lines = append(lines, "  "+l.join(append(row, parts...), width-2, " "))
	}
	if more := len(t.GetSteps()) - to; more > 0 {
		lines = append(lines, l.out.paint(fmt.Sprintf("  … %d behind", more), grey))
	}
	if l.footer != "" {
		lines = append(lines, l.out.paint(cut(printable(l.footer), max(width, 2)), yellow))
	}
	return lines
}

// join puts cells that are not empty side by side, as far as there is room. A mark and what
// it marks stand close.
func (l *stepList) join(cells []cell, width int, between string) string {
	var b strings.Builder
	left := width
	for i, c := range cells {
		if c.text == "" {
			continue
		}
		if i > 0 {
			if left <= len(between)+1 {
				break
			}
			b.WriteString(between)
			left -= len(between)
		}
		text := cut(printable(c.text), max(left, 2))
		left -= utf8.RuneCountInString(text)
		b.WriteString(l.out.paint(text, c.colour))
		if i > 0 {
			between = "  "
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// head is where the task as a whole is.
func (l *stepList) head(width int) string {
	t := l.task
	state := taskCell(t)
	state.text = strings.ReplaceAll(state.text, "_", " ")
	cells := []cell{state}
	if text := queueText(t.GetQueue()); text != "" {
		cells = append(cells, plainCell(text))
	} else if !taskEnded(t.GetState()) {
		cells = append(cells, cell{bar(t.GetPercent(), taskBar), state.colour}, plainCell(fmt.Sprintf("%.0f %%", t.GetPercent())))
	}
	return l.join(append(cells, plainCell(l.out.taskTook(t)), cell{t.GetId(), grey}), width, "  ")
}

// step gives the mark of a step, and what is to be said of it.
func (l *stepList) step(s *telexecv1.Step) (mark cell, parts []cell) {
	c := stepCell(s.GetState())
	took := plainCell(l.out.took(s.GetStartTime(), s.GetEndTime()))
	if s.GetStartTime() == nil {
		took.text = ""
	}
	switch s.GetState() {
	case telexecv1.StepState_STEP_STATE_PENDING:
		mark = cell{"·", grey}
		if s.GetNeedsApproval() {
			parts = []cell{{"will wait for approval", grey}}
		}
	case telexecv1.StepState_STEP_STATE_AWAITING_APPROVAL:
		mark, parts = cell{"?", yellow}, []cell{{l.waits(s, false), yellow}}
	case telexecv1.StepState_STEP_STATE_RUNNING:
		mark = cell{"▸", green}
		if s.GetPercent() > 0 {
			parts = append(parts, cell{bar(s.GetPercent(), stepBar), green}, plainCell(fmt.Sprintf("%.0f %%", s.GetPercent())))
		}
		parts = append(parts, plainCell(hostsDone(s)), took)
		for _, r := range s.GetRuns() {
			switch {
			case r.GetState() == telexecv1.StepState_STEP_STATE_AWAITING_APPROVAL:
				parts = append(parts, cell{l.waits(s, false), yellow})
			case r.GetRetryTime() != nil:
				again := r.GetRetryTime().AsTime().Sub(l.out.now()).Round(time.Second)
				parts = append(parts, cell{fmt.Sprintf("tried again in %s: %s", humanDuration(max(again, 0)), r.GetFailure().GetMessage()), yellow})
			default:
				continue
			}
			break
		}
	case telexecv1.StepState_STEP_STATE_COMPLETED:
		mark, parts = cell{"✓", green}, []cell{took}
	case telexecv1.StepState_STEP_STATE_FAILED, telexecv1.StepState_STEP_STATE_LOST:
		mark, parts = cell{"✗", red}, []cell{took, {firstOf(failedWhy(s), c.text), red}}
	default:
		mark, parts = cell{"–", grey}, []cell{{c.text, grey}}
	}
	if s.GetUndoState() == telexecv1.UndoState_UNDO_STATE_UNSPECIFIED {
		return mark, parts
	}
	undo := undoCell(s.GetUndoState())
	undo.text = strings.ReplaceAll(undo.text, "_", " ")
	switch s.GetUndoState() {
	case telexecv1.UndoState_UNDO_STATE_PENDING:
		undo.text, undo.colour = "to be undone", grey
	case telexecv1.UndoState_UNDO_STATE_RUNNING:
		mark = cell{"◂", yellow}
		undo.text = "being undone"
	case telexecv1.UndoState_UNDO_STATE_AWAITING_APPROVAL:
		mark = cell{"?", yellow}
		undo.text = firstOf(l.waits(s, true), "its undo waits for approval")
	case telexecv1.UndoState_UNDO_STATE_UNDONE:
		mark = cell{"◂", grey}
	case telexecv1.UndoState_UNDO_STATE_UNDO_FAILED:
		mark = cell{"✗", red}
		for _, r := range s.GetRuns() {
			if r.GetUndoFailure() != nil {
				undo.text += ": " + r.GetUndoFailure().GetMessage()
				break
			}
		}
	case telexecv1.UndoState_UNDO_STATE_UNKNOWN:
		undo.text = "not undone: its outcome is not known"
	case telexecv1.UndoState_UNDO_STATE_CANCELLED:
		undo.text = "undo cancelled"
	}
	return mark, append(parts, undo)
}

// waits says that a step, or what takes it back, waits for people; empty where an undo
// does not.
func (l *stepList) waits(s *telexecv1.Step, undo bool) string {
	for _, ap := range l.approvals {
		if ap.GetStep() == s.GetName() && ap.GetUndoes() == undo {
			what := "waits for approval "
			if undo {
				what = "its undo waits for approval "
			}
			return what + needs(ap.GetRequiredApprovals(), ap.GetApprovals(), ap.GetRoles()) + " until " + l.out.clock(ap.GetExpireTime()) + ": telexec approvals show " + ap.GetCommandId()
		}
	}
	if undo {
		return ""
	}
	for _, r := range s.GetRuns() {
		if r.GetState() == telexecv1.StepState_STEP_STATE_AWAITING_APPROVAL {
			return "waits for approval: telexec approvals show " + r.GetCommandId()
		}
	}
	return "waits for approval"
}

// hostsDone is "1 of 3 hosts"; empty of one.
func hostsDone(s *telexecv1.Step) string {
	if len(s.GetRuns()) < 2 {
		return ""
	}
	done := 0
	for _, r := range s.GetRuns() {
		if r.GetState() >= telexecv1.StepState_STEP_STATE_COMPLETED {
			done++
		}
	}
	return fmt.Sprintf("%d of %d hosts", done, len(s.GetRuns()))
}

// failedWhy is why a step has failed on the first of the hosts where it has.
func failedWhy(s *telexecv1.Step) string {
	for _, r := range s.GetRuns() {
		if r.GetState() != telexecv1.StepState_STEP_STATE_FAILED && r.GetState() != telexecv1.StepState_STEP_STATE_LOST {
			continue
		}
		why := strings.Join(strings.Fields(r.GetFailure().GetMessage()), " ")
		if len(s.GetRuns()) > 1 {
			why = r.GetHost() + ": " + why
		}
		return why
	}
	return ""
}

// window gives which of n rows are shown where there is room for so many: those around
// one. What is left out above and below takes a row each.
func window(n, around, room int) (from, to int) {
	if n <= room {
		return 0, n
	}
	room = max(room-2, 1)
	from = min(max(around-room/2, 0), n-room)
	return from, from + room
}

// bar is how much of 100 is done.
func bar(percent float64, width int) string {
	full := min(max(int(percent*float64(width)/100), 0), width)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// padded is s with blanks behind it.
func padded(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}
