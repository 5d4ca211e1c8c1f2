package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dunnage/spec"
)

// pulls shows the progress of images on stderr: a bar an image on a terminal,
// else a line when its state changes.
type pulls struct {
	p      *program
	mu     sync.Mutex
	bars   *mpb.Progress // nil until something is drawn
	images map[string]*imagePull
}

// imagePull adds an image's layers up.
type imagePull struct {
	layers map[string]spec.PullProgress
	began  time.Time
	state  atomic.Value // string: the bar reads it from a goroutine of its own
	bar    *mpb.Bar
}

func (p *program) newPulls() *pulls {
	s := &pulls{p: p, images: map[string]*imagePull{}}
	return s
}

// screen is where bars are drawn.
func (s *pulls) screen() *mpb.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars == nil {
		s.bars = mpb.New(mpb.WithOutput(s.p.stderr), mpb.WithWidth(40))
	}
	return s.bars
}

// lines is where other output goes, so that it stays above the bars.
func (s *pulls) lines() io.Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		return s.bars
	}
	return s.p.stderr
}

func (s *pulls) show(p spec.PullProgress) {
	img := s.images[p.Image]
	if img == nil {
		img = s.begin(p.Image)
	}
	if p.Layer != "" {
		img.layers[p.Layer] = p
		if p.State == "waiting" || p.State == "downloading" {
			s.state(p.Image, img, "downloading")
		}
	} else {
		s.state(p.Image, img, pullState(p))
	}
	if img.bar != nil {
		done, total := img.sum()
		img.bar.SetTotal(total, false)
		img.bar.SetCurrent(done)
		if p.Layer == "" && p.State == "ready" {
			img.bar.SetTotal(-1, true)
		}
	}
}

// pullState is a state with what it waits for.
func pullState(p spec.PullProgress) string {
	if p.Waiting != "" {
		return p.State + ": " + p.Waiting
	}
	return p.State
}

func (s *pulls) begin(ref string) *imagePull {
	img := &imagePull{layers: map[string]spec.PullProgress{}, began: s.p.now()}
	img.state.Store("")
	s.images[ref] = img
	if !s.p.terminal.stderr {
		return img
	}
	img.bar = s.screen().AddBar(0,
		mpb.PrependDecorators(decor.Name(printable(ref)+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Any(func(decor.Statistics) string {
			return " " + img.state.Load().(string) + " " + age(s.p.now(), img.began)
		})))
	return img
}

// state notes an image's state; without a terminal, a new one is a line.
func (s *pulls) state(ref string, img *imagePull, state string) {
	if img.state.Swap(printable(state)) == state || img.bar != nil {
		return
	}
	fmt.Fprintf(s.p.stderr, "image %s: %s\n", printable(ref), printable(state))
}

func (i *imagePull) sum() (done, total int64) {
	for _, l := range i.layers {
		if l.State == "done" || l.State == "exists" {
			l.Offset = l.Total
		}
		done, total = done+l.Offset, total+l.Total
	}
	return done, total
}

// close leaves the bars as they are and waits for their last drawing.
func (s *pulls) close() {
	if s.bars == nil {
		return
	}
	for _, img := range s.images {
		img.bar.Abort(false)
	}
	s.bars.Wait()
}
