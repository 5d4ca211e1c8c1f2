package logwriter

import "time"

// A program that prints without end, and the log writer that reads it, would take
// all the CPU they get, from services that answer somebody. Its pipe is read at
// a rate that no service in its right mind prints at, and so it waits for that.
const (
	rate = 64 << 20 // bytes a second, of each stream
	// burst is what is read as fast as it comes.
	burst = 8 << 20
	// rest is for how long nothing is read then: long enough for others to
	// use, and for the pipe to fill.
	rest = 5 * time.Millisecond
)

// brake knows by when what has been read would have come at the rate.
type brake struct{ due time.Time }

// pause takes n bytes that were read by now, and is how long to read no more.
func (b *brake) pause(n int, now time.Time) time.Duration {
	const ahead = burst * time.Second / rate
	if b.due.Before(now) {
		b.due = now
	}
	b.due = b.due.Add(time.Duration(n) * time.Second / rate)
	if b.due.Sub(now) < ahead {
		return 0
	}
	return rest
}
