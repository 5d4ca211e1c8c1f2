package engine

import (
	"sync"
	"time"
)

// oomLag is how long a process that the kernel kills for memory may take to be gone,
// and containerd to say so: before that nobody knows whether it was a replica's first
// process. Looks are as far apart.
const oomLag = 2 * time.Second

// oomWatch tells a replica that ended for want of memory from one that lost another
// process so, and ended later by something else. The kernel counts the kills since
// the start, and doesn't say whom it killed.
type oomWatch struct {
	mu   sync.Mutex
	seen map[string]oomCount // by replica
}

type oomCount struct {
	pid      int       // the replica's first process
	outlived int64     // kills that it has outlived
	fresh    int64     // kills when it was first seen that they are more
	since    time.Time // when that was; zero = they aren't
}

// running takes how many kills there were, and returns how many of them the replica
// has outlived. One that ran before this agent has outlived all that came before.
func (w *oomWatch) running(id string, pid int, kills int64, adopted bool, now time.Time) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.seen[id]
	if c.pid != pid {
		c = oomCount{pid: pid}
		if adopted {
			c.outlived = kills
		}
	}
	if !c.since.IsZero() && now.Sub(c.since) >= oomLag {
		c.outlived, c.since = c.fresh, time.Time{}
	}
	if c.since.IsZero() && kills > c.outlived {
		c.fresh, c.since = kills, now
	}
	if w.seen == nil {
		w.seen = map[string]oomCount{}
	}
	w.seen[id] = c
	return c.outlived
}

// ended reports whether the process that ended at a time was killed for memory, or
// ended for one that was. Without a look at it while it ran, any kill is taken for that.
func (w *oomWatch) ended(id string, pid int, kills int64, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.seen[id]
	if c.pid != pid {
		c = oomCount{}
	}
	switch {
	case kills <= c.outlived:
		return false
	case c.since.IsZero(), kills > c.fresh:
		return true
	}
	return at.Sub(c.since) < oomLag
}

func (w *oomWatch) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, id)
}
