package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// shaken are images of which one is in doubt.
type shaken struct {
	Images
	mu     sync.Mutex
	doubt  []spec.DoubtfulImage
	answer func() ([]string, error)
}

func (s *shaken) Doubtful() []spec.DoubtfulImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]spec.DoubtfulImage(nil), s.doubt...)
}

func (s *shaken) Verify(context.Context, string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mended, err := s.answer()
	if err == nil {
		s.doubt = nil
	}
	return mended, err
}

// Without notes of which images came lately people see why nothing starts, and
// why that lasts where it does.
func TestDoubtOfAllImagesIsTold(t *testing.T) {
	all := spec.DoubtfulImage{}
	if got := doubts([]spec.DoubtfulImage{all}); len(got) != 1 || !strings.Contains(got[0], "all images are verified") {
		t.Errorf("shown: %q", got)
	}
	wantNext(t, doubts([]spec.DoubtfulImage{all, {Error: "no space"}, {Ref: "web:1", Digest: "sha256:aa"}, {Ref: "web:1", Digest: "sha256:aa", Error: "no route"}})...)
	s := newScenario(1, world.Truth).loop
	var mended []string
	var err error
	s.cfg.Images = &shaken{Images: s.cfg.Images, doubt: []spec.DoubtfulImage{all}, answer: func() ([]string, error) { return mended, err }}
	for _, err = range []error{nil, spec.ErrUnavailable, errors.New("no space")} {
		if got := s.verifyImage(all, map[string]string{}); !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, err)
		}
	}
	evs, _ := s.events.after(0)
	evs = slices.DeleteFunc(evs, func(e spec.Event) bool { return e.Kind != spec.EventProblem })
	if len(evs) != 1 || !strings.HasPrefix(evs[0].Message, "nothing is started, since it can't be told which images a power cut may have damaged: no space; ") {
		t.Errorf("told: %+v", evs)
	}
	mended, err = []string{"images.recent was a directory, and is moved"}, nil
	if err := s.verifyImage(all, map[string]string{}); err != nil {
		t.Error(err)
	}
	if evs, _ := s.events.after(0); len(evs) == 0 || evs[len(evs)-1].Kind != spec.EventRepaired || evs[len(evs)-1].Message != mended[0] {
		t.Errorf("told: %+v", evs)
	}
}

// What was mended is told with the image's name, and what couldn't be once.
func TestDoubtfulImagesAreTold(t *testing.T) {
	const ref = "example.org/web:1"
	for _, tc := range []struct {
		name   string
		mended []string
		err    error
		kind   spec.EventKind
		want   string
	}{
		{"whole", nil, nil, "", ""},
		{"mended", []string{"layer x: /bin/sh has 0 bytes instead of 12"}, nil, spec.EventRepaired,
			"image example.org/web:1 was damaged when the power was cut, and is mended: layer x: /bin/sh has 0 bytes instead of 12"},
		{"offline", nil, errors.New("no route"), spec.EventProblem, "image example.org/web:1 can't be used, and what needs it doesn't start: no route; `dunnage image pull "},
		{"unanswered", nil, spec.ErrUnavailable, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScenario(1, world.Truth).loop
			d := spec.DoubtfulImage{Ref: ref, Digest: "sha256:aa"}
			images := &shaken{Images: s.cfg.Images, doubt: []spec.DoubtfulImage{d}, answer: func() ([]string, error) { return tc.mended, tc.err }}
			s.cfg.Images = images
			told := map[string]string{}
			times := 1
			if tc.err != nil {
				times = 2
			}
			for range times {
				if err := s.verifyImage(d, told); !errors.Is(err, tc.err) {
					t.Fatal(err)
				}
			}
			evs, _ := s.events.after(0)
			n := 0
			for _, e := range evs {
				if strings.Contains(e.Message, ref) {
					n++
					if e.Kind != tc.kind || !strings.HasPrefix(e.Message, tc.want) {
						t.Errorf("told: %s %q", e.Kind, e.Message)
					}
				}
			}
			if want := map[bool]int{true: 0, false: 1}[tc.kind == ""]; n != want {
				t.Errorf("told %d times, want %d", n, want)
			}
		})
	}
}
