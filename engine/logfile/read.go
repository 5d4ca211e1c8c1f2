package logfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// Source is the log of one replica.
type Source struct {
	Service string
	Replica string
	Path    string // of the current file
}

// pollEvery is how soon a new line is seen. Polling, not inotify, because
// every user of a host shares its few inotify instances (128 by default), and
// a stat a replica costs a few microseconds.
const pollEvery = 200 * time.Millisecond

// Read sends the last tail lines of each source (-1: all, 0: none), in order
// of time, then, with follow, what is written later, until ctx ends or send
// returns an error. sources is asked again and again: what appears later is
// read from its beginning. The end of ctx is no error.
func Read(ctx context.Context, sources func() []Source, tail int, follow bool, send func(spec.LogLine) error) (err error) {
	r := &reader{cursors: make(map[Source]*cursor), send: send}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.add(sources(), tail); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := r.drain(ctx); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvery):
		}
		if err := r.look(); err != nil {
			return err
		}
		if err := r.add(sources(), -1); err != nil {
			return err
		}
	}
	return nil
}

type reader struct {
	cursors map[Source]*cursor
	order   []Source // by replica: what is written at the same time has a stable order
	heads   []head
	send    func(spec.LogLine) error
}

// head is the next entry of a source.
type head struct {
	Source
	line Line
}

func (r *reader) add(sources []Source, tail int) error {
	for _, s := range sources {
		if r.cursors[s] != nil {
			continue
		}
		c, err := newCursor(s.Path, tail)
		if err != nil {
			return fmt.Errorf("read log of %s: %w", s.Replica, err)
		}
		r.cursors[s] = c
		r.order = append(r.order, s)
	}
	slices.SortFunc(r.order, func(a, b Source) int { return cmp.Compare(a.Replica, b.Replica) })
	return nil
}

// drain sends everything that is there, merged by time.
func (r *reader) drain(ctx context.Context) error {
	r.heads = r.heads[:0]
	for _, s := range r.order {
		if err := r.advance(s); err != nil {
			return err
		}
	}
	for len(r.heads) > 0 && ctx.Err() == nil {
		first := 0
		for i, h := range r.heads {
			if h.line.At.Before(r.heads[first].line.At) {
				first = i
			}
		}
		h := r.heads[first]
		r.heads = slices.Delete(r.heads, first, first+1)
		if err := r.send(spec.LogLine{
			At: h.line.At, Service: h.Service, Replica: h.Replica, Stream: h.line.Stream, Partial: h.line.Partial, Text: h.line.Text,
		}); err != nil {
			return err
		}
		if err := r.advance(h.Source); err != nil {
			return err
		}
	}
	return nil
}

// advance puts the next entry of a source among the heads.
func (r *reader) advance(s Source) error {
	l, ok, err := r.cursors[s].next()
	if err != nil {
		return fmt.Errorf("read log of %s: %w", s.Replica, err)
	}
	if ok {
		r.heads = append(r.heads, head{s, l})
		slices.SortStableFunc(r.heads, func(a, b head) int { return cmp.Compare(a.Replica, b.Replica) })
	}
	return nil
}

func (r *reader) look() error {
	for s, c := range r.cursors {
		if err := c.look(); err != nil {
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
