package logwriter

import (
	"errors"
	"sync/atomic"
	"time"
)

// A disk that hangs stops whoever writes to it, inside the kernel. So streams
// are read by others than who writes the file, with a few batches in between.
// While a disk is slow, the pipe is full and the program waits, as it would
// with any other; when no call to the disk has ended for patience, lines are
// dropped until one does.

const (
	batches   = 4
	batchSize = 32 << 10 // of entries: one write takes that many
	patience  = 2 * time.Second
)

var errHangs = errors.New("the disk has not answered for " + patience.String())

// batch is entries on their way to the file.
type batch struct {
	entries []byte
	lost    int // lines dropped before them
}

type queue struct {
	w          *Writer
	free, full chan *batch
	hangs      atomic.Bool
}

func newQueue(w *Writer) *queue {
	q := &queue{w: w, free: make(chan *batch, batches), full: make(chan *batch, batches)}
	for range batches {
		q.free <- &batch{entries: make([]byte, 0, batchSize)}
	}
	return q
}

// take returns a batch to fill; nil means that the disk hangs.
func (q *queue) take(timer *time.Timer) *batch {
	select {
	case b := <-q.free:
		return b
	default:
	}
	if q.hangs.Load() {
		return nil
	}
	defer timer.Stop()
	for calls := int64(-1); calls != q.w.calls.Load(); {
		calls = q.w.calls.Load()
		timer.Reset(patience)
		select {
		case b := <-q.free:
			return b
		case <-timer.C:
		}
	}
	q.hangs.Store(true)
	return nil
}

// drain writes what comes, until full is closed.
func (q *queue) drain() {
	for b := range q.full {
		if b.lost > 0 {
			q.w.lose(b.lost, errHangs)
		}
		q.w.Write(b.entries)
		b.entries, b.lost = b.entries[:0], 0
		q.hangs.Store(false)
		q.free <- b
	}
}
