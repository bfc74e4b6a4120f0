package mcptool

import (
	"fmt"
	"slices"
	"strings"
)

// How much of a plan is told in words. All of it stands in the data beside them.
const (
	// maxStepLines is how many steps are told one by one, whatever they are; of more, those
	// that follow each other and need no word are told in one line.
	maxStepLines = 20
	// maxNamed is how many hosts of a group are named.
	maxNamed = 6
	// maxGroups is how many groups of hosts are told of a step.
	maxGroups = 6
	// maxStepsText is how many bytes are told of hosts; of the steps behind that only their
	// state is.
	maxStepsText = 8 << 10
	// maxGatesTold is how many of the approvals are told that it waits for.
	maxGatesTold = 5
)

// tell says where a task is, what became of its steps, what it waits for, and what to do.
func (f *planFacts) tell(next string) string {
	parts := []string{f.sentence()}
	if steps := f.tellSteps(); steps != "" {
		parts = append(parts, steps)
	}
	told := f.Approvals[:min(len(f.Approvals), maxGatesTold)]
	for i := range told {
		parts = append(parts, told[i].told())
	}
	if more := f.MoreApprovals + len(f.Approvals) - len(told); more > 0 {
		parts = append(parts, fmt.Sprintf("It waits for %s more.", count(more, "decision")))
	}
	if next != "" {
		parts = append(parts, next)
	}
	return strings.Join(parts, "\n")
}

// sentence says where a task is, and why.
func (f *planFacts) sentence() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Task %s %q: %s", f.TaskID, cut(oneLine(f.Task), maxRow), spaced(f.State))
	if f.Outcome != "" && f.Outcome != f.State {
		fmt.Fprintf(&b, " (it was %s)", spaced(f.Outcome))
	}
	if q := f.Queue; q != nil {
		fmt.Fprintf(&b, " at position %d", q.Position)
		if q.EstimatedWait > 0 {
			fmt.Fprintf(&b, ", for about %s", seconds(q.EstimatedWait))
		}
	} else if f.State == "undoing" {
		fmt.Fprintf(&b, ", %.0f %% undone", f.Percent)
	} else if !f.Ended {
		fmt.Fprintf(&b, ", %.0f %% done", f.Percent)
	}
	if f.Cancelling {
		b.WriteString(", being cancelled")
	}
	b.WriteString(".")
	if f.CancelReason != "" {
		fmt.Fprintf(&b, "\nWhoever cancelled it gave this reason: %q", f.CancelReason)
	}
	if f.Failure != nil {
		fmt.Fprintf(&b, "\n%s: %s", f.Failure.Reason, f.Failure.Message)
		if f.Failure.Hint != "" {
			fmt.Fprintf(&b, "\nWhat to do: %s", f.Failure.Hint)
		}
	}
	if f.Undo != nil {
		b.WriteString("\n" + f.Undo.sentence())
	}
	return b.String()
}

func (u *undoFacts) sentence() string {
	said := "Undo: " + spaced(u.State)
	if u.Automatic {
		said += ", because a step has failed that wants it"
	} else if u.By != "" {
		said += ", as " + u.By + " has asked"
	}
	if u.Cancelling {
		said += "; being cancelled"
	}
	if u.Reason != "" && !u.Automatic {
		said += fmt.Sprintf("; the reason given: %q", u.Reason)
	}
	return said + "."
}

// spaced is the name of a state as words.
func spaced(state string) string { return strings.ReplaceAll(state, "_", " ") }

// tellSteps is a line for each step, and more for those on several hosts. Of many steps,
// those in a row of which nothing is to be said but their state are told together.
func (f *planFacts) tellSteps() string {
	var lines []string
	size := 0
	for i := 0; i < len(f.Steps); {
		s, same := &f.Steps[i], 1
		for len(f.Steps) > maxStepLines && i+same < len(f.Steps) && s.alike(&f.Steps[i+same]) {
			same++
		}
		var told []string
		switch {
		case same > 2:
			told = []string{fmt.Sprintf("%q to %q, %s: %s", s.Name, f.Steps[i+same-1].Name, count(same, "step"), s.states())}
		case size > maxStepsText:
			told, same = s.tell()[:1], 1
		default:
			told, same = s.tell(), 1
		}
		for _, line := range told {
			size += len(line)
		}
		lines = append(lines, told...)
		i += same
	}
	if size > maxStepsText {
		lines = append(lines, "There is too much to tell all of it here; get_task_status with the name of a step as \"step\" has all of that one.")
	}
	return strings.Join(lines, "\n")
}

// alike reports whether nothing is to be said of two steps but their state, which is the
// same.
func (s *stepFacts) alike(other *stepFacts) bool {
	return s.plain() && other.plain() && s.states() == other.states()
}

// plain reports whether there is nothing to say of a step but its state.
func (s *stepFacts) plain() bool {
	if s.State != "completed" && s.State != "pending" && s.State != "skipped" || s.UndoState != "" && s.UndoState != "undone" {
		return false
	}
	return len(s.Hosts) == 1 // all hosts in this state
}

// states is the state of a step, and of its undo.
func (s *stepFacts) states() string {
	said := spaced(s.State)
	if s.State == "pending" && s.NeedsApproval {
		said += ", will wait for a person's approval"
	}
	return said + undone(s.UndoState)
}

// undone says what an undo has come to, behind something else.
func undone(state string) string {
	if state == "" {
		return ""
	}
	return "; undo: " + spaced(state)
}

// tell is the line of a step, and the lines of its hosts where there are several.
func (s *stepFacts) tell() []string {
	name, hosts := fmt.Sprintf("%q", s.Name), 0
	for _, n := range s.Hosts {
		hosts += n
	}
	if hosts <= 1 && len(s.Runs) <= 1 {
		if len(s.Runs) == 0 {
			return []string{name + where(s.Session, "") + ": " + s.states()}
		}
		r := &s.Runs[0]
		name += where(s.Session, r.Host)
		said := s.states()
		if r.State == "pending" {
			return []string{name + ": " + said}
		}
		return []string{name + ": " + r.words() + r.command()}
	}
	lines := []string{fmt.Sprintf("%s on %s: %s", name, count(hosts, "host"), s.states())}
	if s.State == "pending" || s.plain() {
		return lines
	}
	groups, order := map[string][]*runOfStep{}, []string{}
	for i := range s.Runs {
		words := s.Runs[i].words()
		if groups[words] == nil {
			order = append(order, words)
		}
		groups[words] = append(groups[words], &s.Runs[i])
	}
	slices.SortStableFunc(order, func(a, b string) int { return groups[a][0].rank() - groups[b][0].rank() })
	for _, words := range order[:min(len(order), maxGroups)] {
		group := groups[words]
		var named []string
		for _, r := range group[:min(len(group), maxNamed)] {
			one := r.Host
			if !r.silent() {
				one += r.command()
			}
			named = append(named, one)
		}
		if more := len(group) - len(named); more > 0 {
			named = append(named, fmt.Sprintf("%d more", more))
		}
		lines = append(lines, fmt.Sprintf("  %d %s: %s", len(group), words, strings.Join(named, "; ")))
	}
	if more := s.MoreRuns + left(order, groups); more > 0 {
		lines = append(lines, fmt.Sprintf("  and on %s more; get_task_status with \"step\": %q has them all", count(more, "host"), s.Name))
	}
	return lines
}

// left is how many runs stand in groups that are not told.
func left(order []string, groups map[string][]*runOfStep) (n int) {
	for _, words := range order[min(len(order), maxGroups):] {
		n += len(groups[words])
	}
	return n
}

// silent reports whether what a run did needs no look at its command.
func (r *runOfStep) silent() bool {
	return r.UndoFailure == nil && (r.State == "completed" || r.State == "pending" || r.State == "skipped")
}

// words say what became of a run; those of which they are the same are told together.
func (r *runOfStep) words() string {
	var b strings.Builder
	b.WriteString(spaced(r.State))
	if r.ExitCode != nil {
		fmt.Fprintf(&b, ", exit code %d", *r.ExitCode)
	}
	if r.RetryTime != "" {
		b.WriteString(", to be tried again")
	}
	if n := len(r.Earlier); n > 0 {
		fmt.Fprintf(&b, ", try %d", n+1)
	}
	if r.Failure != nil && !(r.Failure.Reason == reasonExitStatus && r.ExitCode != nil) {
		fmt.Fprintf(&b, " (%s: %s)", r.Failure.Reason, strings.TrimSuffix(r.Failure.Message, "."))
	}
	b.WriteString(undone(r.UndoState))
	if r.UndoFailure != nil {
		fmt.Fprintf(&b, " (%s: %s)", r.UndoFailure.Reason, strings.TrimSuffix(r.UndoFailure.Message, "."))
	}
	return b.String()
}

// command names the commands of a run, behind something else.
func (r *runOfStep) command() string {
	said := ""
	if r.CommandID != "" {
		said = ", command " + r.CommandID
	}
	if r.UndoCommandID != "" {
		said += ", undo command " + r.UndoCommandID
	}
	return said
}

// told says what is waited for, who may decide, and how.
func (g *gateFacts) told() string {
	what := fmt.Sprintf("Step %q", g.Step)
	if g.Undoes {
		what = fmt.Sprintf("The undo of step %q", g.Step)
	}
	return fmt.Sprintf("%s%s waits for people (approval_id %s). %s", what, where(g.Session, g.Host), g.ApprovalID, g.approvalFacts.sentence())
}

// tellUndos says what an undo does, or would, in its order, and what it leaves alone.
func tellUndos(all []undoOfStep, preview bool) string {
	var lines []string
	title := "What is undone, in this order:"
	if preview {
		title = "What would run, in this order; nothing was done:"
	}
	n := 0
	for _, u := range all {
		if u.State == "pending" {
			n++
			lines = append(lines, fmt.Sprintf("%d. step %q%s: %s", n, u.Step, where(u.Session, someOf(u.Hosts)), cut(oneLine(u.Command), maxLineOf)))
		}
	}
	if n > 0 {
		lines = slices.Insert(lines, 0, title)
	}
	for _, u := range all {
		if u.State != "pending" {
			lines = append(lines, fmt.Sprintf("Left alone: step %q%s: %s", u.Step, where(u.Session, someOf(u.Hosts)), whyNot(u.State)))
		}
	}
	return strings.Join(lines, "\n")
}

// whyNot says why a run is not undone.
func whyNot(state string) string {
	switch state {
	case "not_undoable":
		return "it has no undo."
	case "unknown":
		return "what became of it is not known. Whether to undo it is for a person to say, with `telexec task undo --include-unknown` or in the web UI; you cannot."
	case "undo_failed":
		return "what became of it is not known, and its undo has failed before. Whether to try that again is for a person to say, with `telexec task undo --include-unknown` or in the web UI; you cannot."
	case "undone":
		return "it is undone already."
	}
	return spaced(state) + "."
}

// someOf names hosts, not too many.
func someOf(hosts []string) string {
	if len(hosts) > maxNamed {
		return fmt.Sprintf("%s and %d more hosts", strings.Join(hosts[:maxNamed], ", "), len(hosts)-maxNamed)
	}
	return strings.Join(hosts, ", ")
}

// where says in which session something runs, and on which hosts, as far as that is known,
// behind something else.
func where(session, hosts string) (said string) {
	if session != "" {
		said = fmt.Sprintf(" in session %q", session)
	}
	if hosts != "" {
		said += " on " + hosts
	}
	return said
}
