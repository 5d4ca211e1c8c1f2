package api

import (
	"cmp"
	"context"
	"io"
	"net/url"
	"time"

	"dunnage/spec"
)

// followPoll is how often a followed operation is looked at beside its
// events, so that a lost event can't keep a client waiting.
const followPoll = time.Second

// Follow hands an operation's events to send, in order, until the operation
// has ended, and returns it. Events that came before the call are included.
func (c *Client) Follow(ctx context.Context, id string, send func(spec.Event)) (spec.Operation, error) {
	streamCtx, cancel := context.WithCancel(ctx)
	events := make(chan spec.Event)
	broken := make(chan error, 1)
	go func() {
		defer close(events)
		broken <- c.events(streamCtx, url.Values{"operation": {id}}, func(e spec.Event) error {
			select {
			case events <- e:
				return nil
			case <-streamCtx.Done():
				return streamCtx.Err()
			}
		})
	}()
	defer func() {
		cancel()
		for range events { // until the goroutine is done
		}
	}()
	return c.follow(ctx, id, events, broken, send)
}

func (c *Client) follow(ctx context.Context, id string, events <-chan spec.Event, broken <-chan error, send func(spec.Event)) (spec.Operation, error) {
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	ended := false
	for {
		look, last := false, false
		select {
		case e, open := <-events:
			if !open {
				return spec.Operation{}, c.cutOff(ctx, <-broken)
			}
			send(e)
			last = e.Kind == spec.EventDone || e.Kind == spec.EventFailed
			look = last
		case <-tick.C:
			look = true
		case <-ctx.Done():
			return spec.Operation{}, ctx.Err()
		}
		if !look {
			continue
		}
		op, err := c.Operation(ctx, id)
		if err != nil || op.State.Ended() && (last || ended) {
			return op, err
		}
		ended = op.State.Ended() // its last events get one more tick to arrive
	}
}

func (c *Client) cutOff(ctx context.Context, err error) error {
	return cmp.Or(ctx.Err(), err, c.lost(ctx, io.ErrUnexpectedEOF))
}
