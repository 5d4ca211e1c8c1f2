package orchestrator

import (
	"fmt"
	"time"

	"dunnage/spec"
)

// Who restores his own rules every few seconds is repaired at once each time: a
// repair costs some tens of milliseconds, and is worth what it holds. Only who
// undoes repairs at once is let have his way for a moment, which costs the users
// nothing and bounds what it costs us (ADR 21).

const (
	// insistent is how many repairs are undone by chance: by a tool that changes
	// a table at a time, or by somebody who tries something out.
	insistent = 5
	// repairShare bounds repairs that are undone at once to one part in so many
	// of the time.
	repairShare = 10
	// shortestPause counts what a repair takes beside itself: the look before it,
	// and the one after it. longestPause is what damage may last.
	shortestPause = 200 * time.Millisecond
	longestPause  = time.Second
	// undoneAtOnce is the age at which a repair that held until then was worth it.
	// The kernel's news of who is at it without end is passed on every 300 ms,
	// and a look follows.
	undoneAtOnce = 500 * time.Millisecond
	// frequency is the time in which undone repairs are counted.
	frequency = time.Minute
	// quiet without damage is the end of it: whoever comes more often than
	// insistent times in frequency has been back by then.
	quiet = 20 * time.Second
	// toldEach is how many repairs in frequency are told one by one. Beyond it
	// the number is, once in frequency: events of other things have to stay.
	toldEach = 30
)

// mender spaces the repairs of one damage. Times are its input alone.
type mender struct {
	last   time.Time     // the end of the last repair
	took   time.Duration // that repair
	undone time.Time     // when damage was first seen after it; zero = it wasn't
	row    int           // repairs up to the last that were undone at once
}

// pause is the time between two repairs that are undone at once.
func (m *mender) pause() time.Duration {
	return min(max(repairShare*m.took, shortestPause), longestPause)
}

// damaged takes damage that is there, and returns when it may be repaired.
func (m *mender) damaged(now time.Time) time.Time {
	if m.undone.IsZero() {
		m.undone = now
		if now.Sub(m.last) < max(m.pause(), undoneAtOnce) {
			m.row++
		} else {
			m.row = 0
		}
	}
	if m.row < insistent {
		return now
	}
	return m.last.Add(m.pause())
}

func (m *mender) repaired(now time.Time, took time.Duration) {
	m.last, m.took, m.undone = now, took, time.Time{}
}

// fight is about damage that comes back.
type fight struct {
	of     spec.ReplicaKey // empty = of the rules and the host's routes
	damage []spec.Damage
	mender mender
	seen   time.Time   // when it was there last
	undone []time.Time // when it was back after a repair, in the last minute
	told   time.Time   // when its frequency was told last; zero = it is no fight
}

// back takes the damage that is there.
func (f *fight) back(now time.Time) {
	if f.seen = now; f.mender.undone.IsZero() && !f.mender.last.IsZero() {
		f.undone = append(f.undone, now)
	}
	for len(f.undone) > 0 && now.Sub(f.undone[0]) >= frequency {
		f.undone = f.undone[1:]
	}
}

// undoneByAnother marks the problems that tell of a fight.
const undoneByAnother = "undone by another program"

func (f *fight) text() string {
	return fmt.Sprintf("%s: repaired each time, and %s %d times in the last minute; "+
		"find the program that sets it, and let it leave alone what is dunnage's", found(f.damage), undoneByAnother, len(f.undone))
}
