package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"dunnage/spec"
)

// events streams events: ?since=SEQ, ?from=TIME and ?until=TIME, ?kind=KIND,
// ?project=NAME, ?name=NAME of services and replicas, ?follow=false for those that
// are kept only, and ?operation=ID for what concerns one operation only.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q, err := eventRequest(r)
	if err != nil {
		return err
	}
	wanted := func(spec.Event) bool { return true }
	if id := r.FormValue("operation"); id != "" {
		op, err := s.backend.Operation(r.Context(), id)
		if err != nil {
			return err
		}
		if q.Since.Before(op.Started) { // so that no history is read for it
			q.Since = op.Started
		}
		wanted = func(e spec.Event) bool { return concerns(e, op) }
	}
	st := newStream(w, s.options.Patience)
	return st.run(r.Context(), func() error {
		return s.backend.Events(r.Context(), q, func(e spec.Event) error {
			if !wanted(e) {
				return nil
			}
			return st.sendID(strconv.FormatUint(e.Seq, 10), messageEvent, e)
		})
	})
}

func eventRequest(r *http.Request) (q spec.EventRequest, err error) {
	after, err := number(r, "since", 0)
	if err != nil {
		return q, err
	}
	if after < 0 {
		return q, invalid("since=%d: sequence numbers start at 0", after)
	}
	q.After = uint64(after)
	if q.Follow, err = truth(r, "follow", true); err != nil {
		return q, err
	}
	for name, at := range map[string]*time.Time{"from": &q.Since, "until": &q.Until} {
		if text := r.FormValue(name); text != "" {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return q, invalid("%s=%q is no time such as 2026-11-22T12:00:00Z", name, text)
			}
		}
	}
	for _, text := range r.Form["kind"] {
		kind := spec.EventKind(text)
		if !slices.Contains(spec.EventKinds, kind) {
			return q, invalid("kind=%q: there are %s", text, strings.Join(kindNames(), ", "))
		}
		q.Kinds = append(q.Kinds, kind)
	}
	q.Project, q.Names = r.FormValue("project"), r.Form["name"]
	return q, nil
}

func kindNames() (names []string) {
	for _, k := range spec.EventKinds {
		names = append(names, string(k))
	}
	return names
}

// concerns reports whether somebody who waits for op wants to see e: its own
// events, and what happens since its start to the project's replicas and to
// the host as a whole (a replica's events don't know why it was made).
func concerns(e spec.Event, op spec.Operation) bool {
	if e.Operation != "" {
		return e.Operation == op.ID
	}
	return (e.Project == op.Project || e.Project == "") && !e.At.Before(op.Started)
}

// Events implements Backend.
func (c *Client) Events(ctx context.Context, r spec.EventRequest, send func(spec.Event) error) error {
	q := url.Values{"since": {strconv.FormatUint(r.After, 10)}, "follow": {strconv.FormatBool(r.Follow)}, "name": r.Names}
	for name, at := range map[string]time.Time{"from": r.Since, "until": r.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	for _, k := range r.Kinds {
		q.Add("kind", string(k))
	}
	if r.Project != "" {
		q.Set("project", r.Project)
	}
	return c.events(ctx, q, send)
}

func (c *Client) events(ctx context.Context, q url.Values, send func(spec.Event) error) error {
	return c.stream(ctx, http.MethodGet, "/events?"+q.Encode(), nil, handlers{messageEvent: into(send)})
}
