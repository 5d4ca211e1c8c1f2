package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dunnage/api"
	"dunnage/spec"
)

const (
	// rolloutPoll is how often the bars of a rollout are brought up to date: as
	// often as a person can read.
	rolloutPoll = 250 * time.Millisecond
	// standstillPoll is how often a rollout without bars is looked at: it is
	// about to stand still for as long as a person takes.
	standstillPoll = time.Second
)

// rolloutWidth is the width of a bar in columns.
const rolloutWidth = 12

// rollouts shows on a terminal how many replicas of each service are ready, and
// what the others wait for; everywhere, what waits for a word of somebody.
type rollouts struct {
	pulls *pulls // owns the bars on the screen
	bars  map[string]*rolloutBar
	told  map[string]bool // lines about the present standstill
}

// rolloutBar is one service.
type rolloutBar struct {
	bar     *mpb.Bar
	waiting atomic.Value // string: the bar reads it from a goroutine of its own
}

// follow shows the project's services until ctx ends.
func (s *rollouts) follow(ctx context.Context, agent *api.Client, project string) {
	drawn := s.pulls.p.terminal.stderr
	poll := standstillPoll
	if drawn {
		poll = rolloutPoll
	}
	tick := time.NewTicker(poll)
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
			if p.Name != project {
				continue
			}
			if drawn {
				s.show(p)
			}
			s.tell(p)
		}
	}
}

// tell says once what a rollout stands still for until somebody says so: there
// is no event for as long as that takes.
func (s *rollouts) tell(p spec.ProjectStatus) {
	told := map[string]bool{}
	for _, line := range standstills(p) {
		if !s.told[line] {
			// Progress that can't be shown is no reason to stop following.
			_, _ = io.WriteString(s.pulls.lines(), printable(line)+"\n")
		}
		told[line] = true
	}
	s.told = told
}

// standstills lists what somebody has to say a word to, and who serves until then.
// While a rollout is paused, its canaries can't be promoted.
func standstills(p spec.ProjectStatus) (lines []string) {
	if p.Paused != "" {
		serves := ""
		for _, svc := range p.Services {
			if text := svc.Meanwhile(); text != "" {
				serves += "; " + svc.Name + ": "
				if svc.Trial > 0 {
					serves += onTrial(svc) + ", "
				}
				serves += text
			}
		}
		return []string{fmt.Sprintf("%s: paused (%s)%s; `dunnage rollout resume -p %s` goes on, `dunnage rollback -p %s` goes back",
			p.Name, p.Paused, serves, p.Name, p.Name)}
	}
	for _, svc := range p.Services {
		if svc.Trial > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s; `dunnage promote -p %s` goes on, `dunnage rollback -p %s` goes back",
				svc.Name, onTrial(svc), p.Name, p.Name))
		}
	}
	return lines
}

func onTrial(s spec.ServiceStatus) string {
	return fmt.Sprintf("canary: %d of %d", s.Trial, s.Wanted)
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
