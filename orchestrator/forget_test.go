package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// shopKept lists what is kept of the project shop: "record", "releases", "receipts", and
// names that images are retained under.
func shopKept(t *testing.T, s *scenario, k *keeper) (out []string) {
	t.Helper()
	st, err := s.loop.cfg.Store.Load()
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := s.loop.cfg.Store.Receipts("shop")
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(st.Projects, func(p spec.ProjectRecord) bool { return p.Name == "shop" }) {
		out = append(out, "record")
	}
	if len(st.Releases["shop"]) > 0 {
		out = append(out, "releases")
	}
	if len(receipts) > 0 {
		out = append(out, "receipts")
	}
	return append(out, slices.Sorted(slices.Values(k.names))...)
}

// forgettable is a world in which shop has two releases and a volume.
func forgettable(t *testing.T) (*scenario, *keeper) {
	s := newScenario(1, world.Truth)
	k := &keeper{Images: s.loop.cfg.Images}
	s.loop.cfg.Images = k
	s.quiet = true
	p := valid("shop", "slow")
	p.Volumes = []spec.Volume{{Name: "data", ID: "shop_data"}}
	ask(t, s, p)
	p.Services[0].Container.Environment = []string{"V=2"}
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	if want := []string{"record", "releases", "receipts", "shop-release-1", "shop-release-2"}; !slices.Equal(shopKept(t, s, k), want) {
		t.Fatalf("kept: %q", shopKept(t, s, k))
	}
	return s, k
}

// What is forgotten is gone from the store and lets go of its images; it is named,
// and so is what stays. Afterwards the project is unknown, and begins anew.
func TestDownForgets(t *testing.T) {
	for _, name := range []string{"up", "down already"} {
		t.Run(name, func(t *testing.T) {
			s, k := forgettable(t)
			defer func() { s.stop() }()
			if name != "up" {
				changed(t, s, spec.ChangeRequest{Kind: "down"})
				s.live(time.Minute, time.Second)
			}
			s.loop.cfg.Volumes = exist{&removals{Volumes: s.loop.cfg.Volumes}, true}
			s.answer(func(ctx context.Context) {
				_, err := s.loop.SetSecrets(ctx, spec.SecretRequest{Project: "shop", Values: map[string]spec.SecretValue{"token": s.value()}})
				if err != nil {
					t.Error(err)
				}
			})
			op := changed(t, s, spec.ChangeRequest{Kind: "down", Forget: true})
			if op.State != spec.OperationDone || !slices.Equal(op.Forgot, []int{1, 2}) {
				t.Errorf("%+v", op)
			}
			if want := []string{"volume shop_data is kept; a deploy of shop finds it again", "secret shop/token is kept; `dunnage secret rm shop/token` removes it"}; !slices.Equal(op.Warnings, want) {
				t.Errorf("warnings %q, want %q", op.Warnings, want)
			}
			s.live(time.Minute, time.Second)
			if kept := shopKept(t, s, k); len(kept) > 0 {
				t.Errorf("kept: %q", kept)
			}
			all, _ := s.loop.events.after(0)
			if !slices.ContainsFunc(all, func(e spec.Event) bool {
				return e.Kind == spec.EventRemoved && e.Project == "shop" && e.Message == "forgot 2 releases, 1 to 2, with their receipts"
			}) {
				t.Errorf("it isn't told: %+v", all)
			}
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: "rollback"}); !errors.Is(err, spec.ErrNotFound) {
				t.Errorf("rollback: %v", err)
			}
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down", Forget: true}); !errors.Is(err, spec.ErrNotFound) {
				t.Errorf("once more: %v", err)
			}
			if op := ask(t, s, valid("shop", "fast")); op.State != spec.OperationDone || op.Release != 1 {
				t.Errorf("deployed again: %+v", op)
			}
		})
	}
}

// A project is forgotten also when the agent dies in between, but not when somebody
// brings it back.
func TestForgottenAfterACrash(t *testing.T) {
	for name, back := range map[string]bool{"let be": false, "rolled back": true} {
		t.Run(name, func(t *testing.T) {
			s, k := forgettable(t)
			defer func() { s.stop() }()
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: "down", Forget: true}); err != nil {
				t.Fatal(err)
			}
			s.loop.Step(t.Context())
			s.start(0) // the agent that was asked is gone
			s.loop.cfg.Images = k
			if back {
				s.loop.Step(t.Context())
				if _, err := request(s, "shop", spec.ChangeRequest{Kind: "rollback"}); err != nil {
					t.Fatal(err)
				}
			}
			s.live(time.Minute, time.Second)
			if kept := shopKept(t, s, k); back != slices.Contains(kept, "shop-release-2") || !back && len(kept) > 0 {
				t.Errorf("kept: %q", kept)
			}
		})
	}
}

// silent is a containerd that lets go of nothing for a while.
type silent struct {
	*keeper
	mute bool
}

func (e *silent) Retain(ctx context.Context, name string, images []spec.PinnedImage) error {
	if e.mute && len(images) == 0 {
		return context.DeadlineExceeded
	}
	return e.keeper.Retain(ctx, name, images)
}

// Images that couldn't be let go of then are later.
func TestForgottenWithASilentEngine(t *testing.T) {
	s, k := forgettable(t)
	defer func() { s.stop() }()
	e := &silent{k, true}
	s.loop.cfg.Images = e
	changed(t, s, spec.ChangeRequest{Kind: "down", Forget: true})
	s.live(10*time.Second, time.Second)
	if kept := shopKept(t, s, k); !slices.Equal(kept, []string{"shop-release-1", "shop-release-2"}) {
		t.Errorf("kept: %q", kept)
	}
	e.mute = false
	s.live(10*time.Second, time.Second)
	if kept := shopKept(t, s, k); len(kept) > 0 {
		t.Errorf("kept: %q", kept)
	}
}

// While a volume is left the project isn't forgotten: nobody would know whose it is.
func TestNotForgottenWithVolumesLeft(t *testing.T) {
	s, k := forgettable(t)
	defer func() { s.stop() }()
	p := valid("shop", "slow")
	p.Volumes = []spec.Volume{{Name: "used", ID: "shop_used"}}
	ask(t, s, p)
	s.loop.cfg.Volumes = stubborn{&removals{Volumes: s.loop.cfg.Volumes}}
	op := changed(t, s, spec.ChangeRequest{Kind: "down", Volumes: true, Forget: true})
	if op.State != spec.OperationFailed || !slices.Equal(op.Removed, []string{"shop_data"}) || !strings.HasSuffix(op.Cause, "`dunnage down -p shop --volumes --forget` tries again") {
		t.Errorf("%+v", op)
	}
	s.live(time.Minute, time.Second)
	if kept := shopKept(t, s, k); !slices.Contains(kept, "releases") {
		t.Errorf("kept: %q", kept)
	}
}
