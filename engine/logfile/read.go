package logfile

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"dunnage/spec"
)

// Source is the log of one replica.
type Source struct {
	Service string
	Replica string
	Path    string // of the current file
}

// Query says which lines are read. The zero value is none: of the past nothing,
// and nothing later.
type Query struct {
	// Tail is how many lines of each source are read, the last of those that the
	// rest chooses; -1 = all.
	Tail         int
	Since, Until time.Time      // both included; zero = open
	Grep         *regexp.Regexp // of a whole line, up to its first MiB; nil = any
	Follow       bool           // go on, until Until if it is set
}

// pollEvery is how soon a new line is seen. Polling, not inotify, because
// every user of a host shares its few inotify instances (128 by default), and
// a stat a replica costs a few microseconds.
const pollEvery = 200 * time.Millisecond

// Read sends the lines of each source that q chooses, in order of time, then,
// if it follows, what is written later, until ctx ends or send returns an error.
// sources is asked again and again: of a log that it names only later, what was
// written since Read began is read, or since Since. The end of ctx is no error.
func Read(ctx context.Context, sources func() []Source, q Query, send func(spec.LogLine) error) (err error) {
	q.Follow = q.Follow && (q.Until.IsZero() || time.Now().Before(q.Until))
	r := &reader{query: q, began: time.Now(), cursors: make(map[Source]*cursor), send: send}
	defer func() { err = errors.Join(err, r.close()) }()
	if err = r.read(ctx, sources); err != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

type reader struct {
	query   Query
	began   time.Time
	cursors map[Source]*cursor
	heads   heads
	send    func(spec.LogLine) error
}

func (r *reader) read(ctx context.Context, sources func() []Source) error {
	if err := r.add(ctx, sources(), r.query); err != nil {
		return err
	}
	for {
		over := !r.query.Follow || !r.query.Until.IsZero() && time.Now().After(r.query.Until)
		if err := r.drain(ctx); err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvery):
		}
		now := sources()
		if err := r.look(now); err != nil {
			return err
		}
		if err := r.add(ctx, now, r.later()); err != nil {
			return err
		}
	}
}

// later is what is asked of a log that is met while following. A replica of an
// earlier release that comes back goes on with its log, and what it wrote then
// isn't new. Since is of the present clock, whatever it was set to meanwhile.
func (r *reader) later() Query {
	q := r.query
	q.Tail = -1
	if q.Since.IsZero() {
		q.Since = time.Now().Add(-time.Since(r.began))
	}
	return q
}

func (r *reader) add(ctx context.Context, sources []Source, q Query) error {
	for _, s := range sources {
		if r.cursors[s] != nil {
			continue
		}
		c, err := newCursor(ctx, s.Path, q)
		if err != nil {
			return fmt.Errorf("read log of %s: %w", s.Replica, err)
		}
		r.cursors[s] = c
	}
	return nil
}

// drain sends everything that is there, merged by time.
func (r *reader) drain(ctx context.Context) error {
	r.heads = r.heads[:0]
	for s, c := range r.cursors {
		h := head{Source: s, cursor: c}
		ok, err := h.advance(ctx)
		if err != nil {
			return err
		}
		if ok {
			r.heads = append(r.heads, h)
		}
	}
	heap.Init(&r.heads)
	for len(r.heads) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := &r.heads[0]
		if err := r.send(spec.LogLine{
			At: h.line.At, Service: h.Service, Replica: h.Replica, Stream: h.line.Stream, Partial: h.line.Partial, Text: bytes.Clone(h.line.Text),
		}); err != nil {
			return err
		}
		ok, err := h.advance(ctx)
		if err != nil {
			return err
		}
		if !ok {
			heap.Pop(&r.heads)
		} else {
			heap.Fix(&r.heads, 0)
		}
	}
	return nil
}

// look sees to rotations, and leaves those whose log is gone.
func (r *reader) look(now []Source) error {
	there := make(map[Source]bool, len(now))
	for _, s := range now {
		there[s] = true
	}
	for s, c := range r.cursors {
		gone, err := c.look()
		if err == nil && gone && !there[s] {
			delete(r.cursors, s)
			err = c.close()
		}
		if err != nil {
			return fmt.Errorf("follow log of %s: %w", s.Replica, err)
		}
	}
	return nil
}

func (r *reader) close() error {
	var errs []error
	for _, c := range r.cursors {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// head is the next entry of a source.
type head struct {
	Source
	cursor *cursor
	line   Line
}

func (h *head) advance(ctx context.Context) (ok bool, err error) {
	h.line, ok, err = h.cursor.next(ctx)
	if err != nil {
		return false, fmt.Errorf("read log of %s: %w", h.Replica, err)
	}
	return ok, nil
}

// heads is a heap, the earliest entry on top. What was written at the same time
// has a stable order.
type heads []head

func (h heads) Len() int      { return len(h) }
func (h heads) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h heads) Less(i, j int) bool {
	return cmp.Or(h[i].line.At.Compare(h[j].line.At), cmp.Compare(h[i].Replica, h[j].Replica)) < 0
}
func (h *heads) Push(x any) { *h = append(*h, x.(head)) }
func (h *heads) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
