package orchestrator

import (
	"time"

	"dunnage/spec"
)

// processBegan is what beats are counted from: the host's clock may be set meanwhile.
var processBegan = time.Now()

// beats notes that the loop has come round.
func (l *Loop) beats() { l.beat.Store(int64(time.Since(processBegan))) }

// Silence is how long ago the loop came round. It does so every two seconds, or
// when what it does has ended.
func (l *Loop) Silence() time.Duration {
	return time.Since(processBegan) - time.Duration(l.beat.Load())
}

// Tell makes an event of a problem that somebody else has found.
func (l *Loop) Tell(problem string) {
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: problem})
}
