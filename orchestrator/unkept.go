package orchestrator

import (
	"fmt"

	"dunnage/spec"
)

// tellUnkept tells once that events aren't kept, and once they are, how many are
// missing: that is the word of it among those that are kept. It returns the
// problem as it is now, empty = there is none.
func (l *Loop) tellUnkept() string {
	why, lost := l.events.history.Unkept()
	was := l.unkept
	l.unkept = why
	const what = "events aren't kept"
	next := "; see that it can be written, which is tried each second; `dunnage events` has it as long as this agent runs"
	switch {
	case why != "" && was == "":
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: what + ": " + why + next})
	case why == "" && was != "":
		l.events.add(spec.Event{Kind: spec.EventRepaired, Message: fmt.Sprintf("no longer: %s: %s; %s among those that are kept", what, was, missing(lost))})
	case why == "" && lost > 0:
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: missing(lost) + " among the events that are kept: more came at once than the disk took"})
	}
	if why == "" {
		return ""
	}
	return fmt.Sprintf("%s, %s so far: %s%s", what, missing(lost), why, next)
}

func missing(n int) string {
	if n == 1 {
		return "1 is missing"
	}
	return fmt.Sprintf("%d are missing", n)
}
