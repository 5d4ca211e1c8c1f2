package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// notebook is a History in memory.
type notebook struct {
	mu   sync.Mutex
	all  []spec.Event
	read int // how often it was
	why  string
	lost int
}

func (n *notebook) Append(e spec.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, e)
}

func (n *notebook) Read(after, before uint64, send func(spec.Event) error) error {
	n.mu.Lock()
	all := append([]spec.Event(nil), n.all...)
	n.read++
	n.mu.Unlock()
	for _, e := range all {
		if e.Seq > after && e.Seq < before {
			if err := send(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *notebook) Unkept() (string, int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	why, lost := n.why, n.lost
	if why == "" {
		n.lost = 0
	}
	return why, lost
}

func (n *notebook) Last() spec.Event {
	if len(n.all) == 0 {
		return spec.Event{}
	}
	return n.all[len(n.all)-1]
}

func (n *notebook) Oldest() time.Time {
	if len(n.all) == 0 {
		return time.Time{}
	}
	return n.all[0].At
}

// messages are those of the events that r asks for.
func messages(t *testing.T, l *Loop, r spec.EventRequest) string {
	t.Helper()
	var out []string
	last := uint64(0)
	err := l.Events(t.Context(), r, func(e spec.Event) error {
		if e.Seq <= last {
			t.Errorf("event %d comes after %d", e.Seq, last)
		}
		last = e.Seq
		out = append(out, e.Message)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// TestEventsOutliveTheAgent: the next one tells of them, with numbers that go on.
func TestEventsOutliveTheAgent(t *testing.T) {
	w, book := world.New(images), &notebook{}
	agent := func() *Loop { return &Loop{cfg: Config{Clock: w}, events: newEvents(w, book)} }
	add := func(l *Loop, texts ...string) {
		for _, m := range texts {
			w.Advance(time.Second)
			l.events.add(spec.Event{Kind: spec.EventProblem, Message: m})
		}
	}
	first := agent()
	began := w.Now()
	add(first, "a", "b")
	first.events.add(spec.Event{Kind: spec.EventPull, Message: "p", Pull: &spec.PullProgress{Layer: "sha256:1"}})
	if got := messages(t, first, spec.EventRequest{}); got != "a b p" || book.read != 0 {
		t.Errorf("the first agent tells %q and reads %d times", got, book.read)
	}
	last := first.events.last
	w.Advance(time.Minute)
	second := agent()
	restarted := w.Now()
	if got := second.events.since(); !got.Equal(began.Add(time.Second)) {
		t.Errorf("kept since %s", got)
	}
	add(second, "c", "d")
	for _, tc := range []struct {
		r    spec.EventRequest
		want string
	}{
		{spec.EventRequest{}, "a b c d"},
		{spec.EventRequest{Since: began.Add(2 * time.Second)}, "b c d"},
		{spec.EventRequest{Until: began.Add(2 * time.Second)}, "a"},
		{spec.EventRequest{After: last}, "c d"}, // who goes on where the first agent ended misses nothing
		{spec.EventRequest{Since: restarted}, "c d"},
		{spec.EventRequest{Project: "nosuch"}, ""},
	} {
		if got := messages(t, second, tc.r); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.r, got, tc.want)
		}
	}
	reads := book.read
	if messages(t, second, spec.EventRequest{Since: restarted}); book.read != reads {
		t.Error("what is in memory was read from the history")
	}
}

// TestAgentsAreTold: each tells of its start, and how the one before it ended.
func TestAgentsAreTold(t *testing.T) {
	w, book := world.New(images), &notebook{}
	agent := func(version string) *Loop {
		l := &Loop{cfg: Config{Clock: w, Version: version}, events: newEvents(w, book)}
		l.TellStart()
		return l
	}
	agent("1").TellStop()
	agent("2") // and is killed
	agent("3").TellStop()
	const want = "agent 1 started|agent 1 stopped; containers and rules stay" +
		"|agent 2 started; the one before it was stopped in order" +
		"|agent 3 started; the one before it left no word of its end, as one that is killed or whose host goes down" +
		"|agent 3 stopped; containers and rules stay"
	var got []string
	for _, e := range book.all {
		got = append(got, e.Message)
	}
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("told %q", text)
	}
}

// What the next agent finds as it was isn't told anew, and what has changed is.
func TestAdoptedIsNotToldAnew(t *testing.T) {
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	s.deploy(replicas(2))
	s.live(20*time.Second, 100*time.Millisecond)
	for _, c := range []struct {
		what          string
		meanwhile     func()
		ready, routed int
	}{
		{"nothing", func() {}, 0, 0},
		{"a death", func() { s.w.Damage(1, 0) }, 1, 2}, // out of the rules and in again
	} {
		c.meanwhile()
		s.start(0)
		s.live(20*time.Second, 100*time.Millisecond)
		var ofReady, ofRouted uint64
		ready, routed := told(s, spec.EventReady, &ofReady), told(s, spec.EventRouted, &ofRouted)
		if len(ready) != c.ready || len(routed) != c.routed {
			t.Errorf("after %s, told %v and %v", c.what, ready, routed)
		}
	}
}

// TestEventsBeyondMemory: those that memory has dropped come from the history,
// each once.
func TestEventsBeyondMemory(t *testing.T) {
	w, book := world.New(images), &notebook{}
	l := &Loop{cfg: Config{Clock: w}, events: newEvents(w, book)}
	const all = keptEvents + 10
	for n := range all {
		l.events.add(spec.Event{Kind: spec.EventProblem, Message: fmt.Sprint(n)})
	}
	if got := strings.Fields(messages(t, l, spec.EventRequest{})); len(got) != all || got[0] != "0" {
		t.Errorf("%d events", len(got))
	}
	if got := strings.Fields(messages(t, l, spec.EventRequest{After: 5})); len(got) != all-5 || got[0] != "5" {
		t.Errorf("%d events after the fifth, from %s on", len(got), got[0])
	}
	stop := errors.New("stop")
	if err := l.Events(t.Context(), spec.EventRequest{}, func(spec.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader who has enough: %v", err)
	}
}

// TestEventsUntil: who follows until a time gets what comes before it, and an end.
func TestEventsUntil(t *testing.T) {
	w := world.New(images)
	l := &Loop{cfg: Config{Clock: w}, events: newEvents(w, nil)}
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: "a"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := 0
	err := l.Events(ctx, spec.EventRequest{Follow: true, Until: w.Now().Add(50 * time.Millisecond)}, func(e spec.Event) error {
		if n++; n == 1 {
			l.events.add(spec.Event{Kind: spec.EventProblem, Message: "b"})
		}
		return nil
	})
	if err != nil || ctx.Err() != nil || n != 2 {
		t.Errorf("%d events, %v, %v", n, err, ctx.Err())
	}
}
