package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dunnage/api"
	"dunnage/spec"
)

// rolloutPoll is how often the bars of a rollout are brought up to date: as
// often as a person can read.
const rolloutPoll = 250 * time.Millisecond

// rolloutWidth is the width of a bar in columns.
const rolloutWidth = 12

// rollouts shows on a terminal how many replicas of each service are ready, and
// what the others wait for.
type rollouts struct {
	pulls *pulls // owns the bars on the screen
	bars  map[string]*rolloutBar
}

// rolloutBar is one service.
type rolloutBar struct {
	bar     *mpb.Bar
	waiting atomic.Value // string: the bar reads it from a goroutine of its own
}

// follow draws the project's services until ctx ends.
func (s *rollouts) follow(ctx context.Context, agent *api.Client, project string) {
	tick := time.NewTicker(rolloutPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := agent.Status(ctx)
		if err != nil {
			continue // following the operation tells of an agent that is gone
		}
		for _, p := range st.Projects {
			if p.Name == project {
				s.show(p)
			}
		}
	}
}

func (s *rollouts) show(p spec.ProjectStatus) {
	for _, svc := range p.Services {
		b := s.bars[svc.Name]
		if b == nil && (!p.Rolling || svc.Waiting == "") {
			continue // it has nothing to do, or not yet
		}
		if b == nil {
			b = s.begin(svc)
		}
		b.waiting.Store(printable(beyondCount(svc)))
		b.bar.SetTotal(int64(svc.Wanted), false)
		b.bar.SetCurrent(int64(svc.Ready))
	}
}

// beyondCount is what a service waits for, without the count that the bar shows.
func beyondCount(svc spec.ServiceStatus) string {
	text := strings.TrimPrefix(svc.Waiting, fmt.Sprintf("%d of %d ready", svc.Ready, svc.Wanted))
	return strings.TrimPrefix(text, "; ")
}

func (s *rollouts) begin(svc spec.ServiceStatus) *rolloutBar {
	b := &rolloutBar{}
	b.waiting.Store("")
	b.bar = s.pulls.screen().AddBar(int64(svc.Wanted),
		mpb.BarRemoveOnComplete(),
		mpb.BarWidth(rolloutWidth),
		mpb.PrependDecorators(decor.Name(printable(svc.Name)+" ")),
		mpb.AppendDecorators(decor.Any(func(st decor.Statistics) string {
			text := fmt.Sprintf("%d/%d %s", st.Current, st.Total, b.waiting.Load())
			return truncate(text, s.pulls.p.terminal.width-len(svc.Name)-rolloutWidth-4)
		})))
	s.bars[svc.Name] = b
	return b
}

// close takes the bars away: the outcome says it better.
func (s *rollouts) close() {
	for _, b := range s.bars {
		b.bar.Abort(true)
	}
}
