package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// published is a project whose service has a port and drains for a time.
func published(image string, drain time.Duration) spec.Project {
	p := valid("shop", image)
	p.Services[0].Ports = []spec.Port{{Published: 8080, Target: 80, Protocol: spec.TCP}}
	p.Services[0].Drain = spec.Duration(drain)
	p.Services[0].Container.StopGrace = spec.Duration(2 * time.Second)
	return p
}

// newest is the project's newest receipt, and how many there are.
func newest(t *testing.T, s *scenario) (spec.Receipt, int) {
	t.Helper()
	rs, err := s.loop.Receipts(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if len(rs) == 0 {
		t.Fatal("no receipt")
	}
	return rs[0], len(rs)
}

// briefly is what a test compares of a receipt.
func briefly(r spec.Receipt) string {
	return fmt.Sprintf("%d: %s of %d from %d: %s", r.Number, r.Kind, r.Release, r.From, r.Outcome)
}

func stepNames(r spec.Receipt) string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

// visits are a visitor whose counts a test decides about.
type visits struct {
	world.Visits
	count func(since time.Time) spec.VisitTally
}

func (v visits) Tally(project string, since time.Time) []spec.VisitTally {
	if project != "shop" || v.count == nil {
		return nil
	}
	t := v.count(since)
	t.Project, t.Service, t.Port = "shop", "web", 8080
	return []spec.VisitTally{t}
}

// counting lets the present agent's visitor count.
func (s *scenario) counting(count func(since time.Time) spec.VisitTally) {
	v := visits{world.Visits{World: s.w}, count}
	s.loop.cfg.Visits, s.loop.receipts.tally = v, v.Tally
}

// A receipt says what a redeploy did, is amended until the old replica is gone,
// and counts each of its connections once.
func TestReceiptOfARedeploy(t *testing.T) {
	for name, tc := range map[string]struct {
		drain        time.Duration
		long         int // connections that outlive drain; three others don't
		drained, cut int
	}{
		"all end":     {20 * time.Second, 0, 3, 0},
		"some don't":  {20 * time.Second, 2, 3, 2},
		"no drain":    {0, 2, 0, 5},
		"none at all": {20 * time.Second, -3, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			ask(t, s, published("fast", tc.drain))
			s.live(10*time.Second, time.Second) // what the scenario itself has opened ends
			for range 3 {
				if tc.long >= 0 {
					s.w.Traffic(9 * time.Second)
				}
			}
			for range tc.long {
				s.w.Traffic(time.Hour)
			}
			s.counting(func(since time.Time) spec.VisitTally {
				if since.After(s.w.Now()) || s.w.Now().Sub(since) > time.Minute {
					return spec.VisitTally{}
				}
				return spec.VisitTally{Sent: 214, LongestGap: spec.Duration(9 * time.Millisecond)}
			})
			s.quiet = true
			op, err := take(t, s, published("slow", tc.drain), spec.Turn{Owner: "alice"})
			if err != nil {
				t.Fatal(err)
			}
			op = pass(t, s, op.ID, time.Minute)
			r, n := newest(t, s)
			if n != 2 || briefly(r) != "2: deploy of 2 from 1: done" || r.Operation != op.ID || r.Owner != "alice" || r.Settled.IsZero() != (tc.drained > 0) {
				t.Fatalf("%d receipts, at the end of %+v: %+v", n, op, r)
			}
			if tally := r.Sum(); tally.Sent != 214 || tally.LongestGap != spec.Duration(9*time.Millisecond) {
				t.Errorf("visits: %+v", r.Visits)
			}
			if r.Images["web"] != "slow" || r.Commits == 0 || r.Rules.Added == 0 || r.Rules.Added != r.Rules.Removed {
				t.Errorf("images %v, %d commits, rules %+v", r.Images, r.Commits, r.Rules)
			}
			s.live(2*time.Minute, time.Second)
			r, _ = newest(t, s)
			if r.Settled.IsZero() || r.Drained != tc.drained || r.Cut != tc.cut || r.Draining != 0 {
				t.Errorf("drained %d, cut %d, draining %d, settled %s", r.Drained, r.Cut, r.Draining, r.Settled)
			}
			want := "pull create start ready rules drain stop"
			if tc.drained == 0 { // there was none to wait for, or none to be waited for
				want = "pull create start ready rules stop"
			}
			if got := stepNames(r); got != want {
				t.Errorf("steps: %s", got)
			}
			for _, step := range r.Steps {
				if step.Name == spec.StepReady && (step.Took.Std() < 2*time.Second || step.Took.Std() > 3*time.Second) {
					t.Errorf("ready took %s", step.Took)
				}
			}
			if len(s.loop.receipts.all) != 0 {
				t.Errorf("%d are still written", len(s.loop.receipts.all))
			}
			if kept, err := s.loop.cfg.Store.Receipts("shop"); err != nil || len(kept) != 2 || kept[1].Drained != r.Drained {
				t.Errorf("stored: %+v, %v", kept, err)
			}
		})
	}
}

// Everything that makes another release the desired one leaves a receipt,
// whatever becomes of it, and nothing else does.
func TestReceiptsOfAllKinds(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	change := func(r spec.ChangeRequest) func() {
		return func() {
			if _, err := request(s, "shop", r); err != nil {
				t.Fatal(err)
			}
			s.live(time.Minute, time.Second)
		}
	}
	deploy := func(image string) func() { return func() { ask(t, s, published(image, time.Second)) } }
	for _, tc := range []struct {
		what string
		do   func()
		want string
	}{
		{"first", deploy("fast"), "1: deploy of 1 from 0: done"},
		{"unchanged", deploy("fast"), "1: deploy of 1 from 0: done"},
		{"redeploy", deploy("slow"), "2: deploy of 2 from 1: done"},
		{"one that fails", deploy("crashing"), "3: deploy of 3 from 2: rolled-back"},
		{"one without an image", deploy("nowhere"), "3: deploy of 3 from 2: rolled-back"},
		{"rollback", change(spec.ChangeRequest{Kind: "rollback", Release: 1}), "4: rollback of 1 from 2: done"},
		{"scale", change(spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 2}}), "5: scale of 4 from 1: done"},
		{"scale to what it is", change(spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{"web": 2}}), "5: scale of 4 from 1: done"},
		{"restart", change(spec.ChangeRequest{Kind: "restart"}), "6: restart of 5 from 4: done"},
		{"stop", change(spec.ChangeRequest{Kind: "stop"}), "6: restart of 5 from 4: done"},
		{"start", change(spec.ChangeRequest{Kind: "start"}), "6: restart of 5 from 4: done"},
		{"down", change(spec.ChangeRequest{Kind: "down"}), "6: restart of 5 from 4: done"},
		{"up again", deploy("fast"), "7: deploy of 6 from 0: done"},
	} {
		tc.do()
		r, _ := newest(t, s)
		if briefly(r) != tc.want || r.Settled.IsZero() {
			t.Errorf("%s: %s, settled %s, cause %q", tc.what, briefly(r), r.Settled, r.Cause)
		}
		if r.Kind == "rollback" && r.Reason != "" {
			t.Errorf("%s: the reason is that of the release that it goes back to: %q", tc.what, r.Reason)
		}
		if r.Outcome == spec.OperationRolledBack && !strings.HasSuffix(r.Cause, "; release 2 is back") {
			t.Errorf("%s: cause %q", tc.what, r.Cause)
		}
	}
}

// A rollout that stands still and goes on has one receipt, whoever follows it.
func TestReceiptOfAPausedRollout(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, published("fast", 0))
	p := published("crashing", 0)
	p.Services[0].Update.OnFailure = spec.FailurePause
	p.Services[0].Update.Monitor = spec.Duration(5 * time.Second)
	op, err := take(t, s, p, spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, time.Minute)
	s.counting(func(since time.Time) spec.VisitTally { // no visit of a minute ago is known any more
		if s.w.Now().Sub(since) > time.Minute {
			return spec.VisitTally{}
		}
		return spec.VisitTally{Sent: 10}
	})
	for _, step := range []struct {
		kind   string
		live   time.Duration
		want   string
		visits int
	}{
		{"resume", 0, "2: deploy of 2 from 1: rolling", 10},
		{"", time.Minute, "2: deploy of 2 from 1: paused", 10},
		{"", time.Hour, "2: deploy of 2 from 1: paused", 10},
		{"resume", 0, "2: deploy of 2 from 1: rolling", 20},
		{"pause", time.Second, "2: deploy of 2 from 1: rolling", 20}, // by hand: the one who follows it goes on to
	} {
		if step.kind != "" {
			if _, err := request(s, "shop", spec.ChangeRequest{Kind: step.kind}); err != nil {
				t.Fatal(err)
			}
		}
		s.live(step.live, 100*time.Millisecond)
		r, n := newest(t, s)
		if briefly(r) != step.want || n != 2 || (r.Outcome == spec.OperationPaused) != strings.Contains(r.Cause, "while it was watched") {
			t.Errorf("%s: %d, %s, cause %q", step.kind, n, briefly(r), r.Cause)
		}
		if r.Sum().Sent != step.visits {
			t.Errorf("%s: visits %+v", step.kind, r.Visits)
		}
	}
	if op, err = take(t, s, published("fast", 0), spec.Turn{TakeOver: true}); err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, time.Minute)
	s.live(time.Minute, time.Second)
	rs, err := s.loop.Receipts(t.Context(), "shop")
	if err != nil || len(rs) != 3 || briefly(rs[0]) != "3: deploy of 3 from 2: done" || briefly(rs[1]) != "2: deploy of 2 from 1: failed" ||
		rs[1].Cause != "replaced by release 3" || rs[1].Settled.IsZero() {
		t.Errorf("afterwards: %+v, %v", rs, err)
	}
}

// New versions of secrets leave a receipt that names them and who set them, and
// no value.
func TestReceiptOfARotation(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	p := published("fast", 0)
	p.Services[0].Container.Secrets = []spec.Secret{{Name: "token", Target: "/run/secrets/token"}}
	p.Secrets = []spec.SecretDeclaration{{Name: "token", Store: "token"}}
	uid := 1000
	set := func(value string, by spec.Actor) {
		s.answer(func(ctx context.Context) {
			if _, err := s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{"token": spec.NewSecretValue([]byte(value))}, By: by}); err != nil {
				t.Error(err)
			}
		})
	}
	is := func(want, reason, owner string, version int) {
		t.Helper()
		s.live(time.Minute, time.Second)
		if r, _ := newest(t, s); briefly(r) != want || r.Reason != reason || r.Secrets["token"] != version || r.Owner != owner {
			t.Errorf("%s: %+v", briefly(r), r)
		}
	}
	set("hunter2", spec.Actor{User: "bob"})
	s.live(time.Minute, time.Second)
	ask(t, s, p)
	set("hunter3", spec.Actor{User: "alice"})
	is("2: secret of 2 from 1: done", "secret token version 2", "alice", 2)
	if _, err := request(s, "shop", spec.ChangeRequest{Kind: "restart"}); err != nil {
		t.Fatal(err)
	}
	set("hunter4", spec.Actor{UID: &uid}) // waits for the restart
	is("4: secret of 4 from 3: done", "secret token version 3", "user 1000", 3)
	s.answer(func(ctx context.Context) {
		if _, err := s.loop.RollbackSecret(ctx, spec.SecretID{Name: "token"}, 0, spec.Actor{User: "carol"}); err != nil {
			t.Error(err)
		}
	})
	is("5: secret of 5 from 4: done", "secret token version 2", "carol", 2)
}

// An agent that dies in the middle leaves a receipt; the next one goes on with
// it, and says that it was interrupted.
func TestReceiptSurvivesACrash(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.quiet = true
	ask(t, s, published("fast", time.Hour))
	for range 3 {
		s.w.Traffic(20 * time.Second)
	}
	for range 2 {
		s.w.Traffic(2 * time.Hour)
	}
	op, err := take(t, s, published("slow", time.Hour), spec.Turn{Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	pass(t, s, op.ID, 300*time.Millisecond)
	s.start(0)
	s.live(5*time.Second, 100*time.Millisecond)
	r, n := newest(t, s)
	if n != 2 || briefly(r) != "2: deploy of 2 from 1: done" || r.Interrupted.IsZero() || r.Owner != "alice" || r.Draining != 5 || !strings.HasPrefix(stepNames(r), "pull") {
		t.Errorf("%d, %s: %+v", n, briefly(r), r)
	}
	s.start(0) // and again, while connections drain
	s.live(time.Minute, time.Second)
	r, _ = newest(t, s)
	if r.Drained != 3 || r.Draining != 2 || !r.Settled.IsZero() {
		t.Errorf("drained %d, draining %d, settled %s", r.Drained, r.Draining, r.Settled)
	}
	s.start(0)
	s.live(2*time.Hour, 10*time.Second)
	if r, _ = newest(t, s); r.Drained != 3 || r.Cut != 2 || r.Draining != 0 || r.Settled.IsZero() {
		t.Errorf("drained %d, cut %d, draining %d, settled %s", r.Drained, r.Cut, r.Draining, r.Settled)
	}
}

// The end of a rollout whose operation died with its agent is told and counted
// by the next, once, as that of any other.
func TestEndOfAnOrphanedRolloutIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		first   string // image, if there is a release before
		image   string
		onFail  spec.FailureAction
		replace bool
		outcome spec.OperationState
		kind    spec.EventKind
		message string // begins so
	}{
		"rolled back": {"fast", "broken", spec.FailureRollback, false, spec.OperationRolledBack, spec.EventFailed, "deploy rolled-back: shop-web-"},
		"paused":      {"fast", "broken", spec.FailurePause, false, spec.OperationPaused, spec.EventFailed, "deploy paused: shop-web-"},
		"failed":      {"", "broken", spec.FailureRollback, false, spec.OperationFailed, spec.EventFailed, "deploy failed: shop-web-"},
		"replaced":    {"fast", "slow", spec.FailureRollback, true, spec.OperationFailed, spec.EventFailed, "deploy failed: replaced by release 3"},
		"done":        {"fast", "slow", spec.FailureRollback, false, spec.OperationDone, spec.EventDone, "deploy done"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			s.quiet = true
			if tc.first != "" {
				ask(t, s, published(tc.first, 0))
			}
			p := published(tc.image, 0)
			p.Services[0].Update.OnFailure = tc.onFail
			p.Services[0].Update.Monitor = spec.Duration(5 * time.Second)
			op, err := take(t, s, p, spec.Turn{})
			if err != nil {
				t.Fatal(err)
			}
			if op = pass(t, s, op.ID, 300*time.Millisecond); op.State != spec.OperationRolling {
				t.Fatalf("%+v", op)
			}
			s.start(0)
			if tc.replace {
				ask(t, s, published("fast", 0))
			}
			s.live(5*time.Minute, 100*time.Millisecond)
			var seen uint64
			all := told(s, tc.kind, &seen)
			ours := slices.DeleteFunc(all, func(e spec.Event) bool { return e.Operation != op.ID })
			if len(ours) != 1 || !strings.HasPrefix(ours[0].Message, tc.message) || ours[0].Project != "shop" {
				t.Errorf("told %+v", ours)
			}
			if n := s.loop.Counted().Operations[spec.OperationCount{Project: "shop", Kind: "deploy", Outcome: tc.outcome}]; n != 1 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}

// The numbers of receipts and how many there are stay bounded by the store, and
// a receipt that can't be saved is saved later.
func TestReceiptIsSavedLater(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	ask(t, s, published("fast", 0))
	op, err := take(t, s, published("slow", 0), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	op = pass(t, s, op.ID, time.Minute)
	s.w.Restart(0, false, 1) // every call fails from now on
	s.live(time.Second, 100*time.Millisecond)
	if r, _ := newest(t, s); briefly(r) != "2: deploy of 2 from 1: done" {
		t.Errorf("%s", briefly(r))
	}
	s.w.Restart(0, false, 0)
	s.live(time.Minute, time.Second)
	if kept, err := s.loop.cfg.Store.Receipts("shop"); err != nil || len(kept) != 2 || kept[1].Outcome != op.State || kept[1].Settled.IsZero() {
		t.Errorf("%+v, %v", kept, err)
	}
}

// A release during whose rollout visits failed goes back, and says why; the way
// back isn't judged.
func TestMaxFailedGoesBack(t *testing.T) {
	for name, tc := range map[string]struct {
		allowed, before int
		state           spec.OperationState
	}{
		"over it":    {0, 0, spec.OperationRolledBack},
		"within it":  {3, 0, spec.OperationDone},
		"ill before": {0, 1, spec.OperationDone},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(1, world.Truth)
			defer func() { s.stop() }()
			p := published("fast", 0)
			ask(t, s, p)
			began := s.w.Now()
			s.counting(func(since time.Time) spec.VisitTally {
				out := spec.VisitTally{Sent: 214}
				if s.w.Now().After(began) {
					out.Failed, out.Reasons = 3, map[string]int{"connection refused": 3}
				}
				if since.Before(began) {
					out.Failed += tc.before
				}
				return out
			})
			p = published("slow", 0)
			p.Services[0].MaxFailed = tc.allowed
			op, err := take(t, s, p, spec.Turn{})
			if err != nil {
				t.Fatal(err)
			}
			op = pass(t, s, op.ID, time.Minute)
			want := ""
			if tc.state == spec.OperationRolledBack {
				want = "web: 3 of 214 visits of port 8080 failed during the rollout (max_failed 0): connection refused; `dunnage explain 8080` walks that way; release 1 is back"
			}
			if r, _ := newest(t, s); op.State != tc.state || op.Cause != want || r.Cause != want || r.Sum().Failed != 3 {
				t.Errorf("%s %q: %+v", op.State, op.Cause, r)
			}
		})
	}
}

// between does something between two readings of the receipts.
type between struct {
	Store
	do func()
}

func (b between) Receipts(project string) ([]spec.Receipt, error) {
	kept, err := b.Store.Receipts(project)
	b.do()
	return kept, err
}

// A receipt that settles while it is asked for is told as its end was, with visits:
// who follows a deploy asks just then.
func TestReceiptThatSettlesMeanwhile(t *testing.T) {
	s := newScenario(1, world.Truth)
	defer func() { s.stop() }()
	s.counting(func(time.Time) spec.VisitTally { return spec.VisitTally{Sent: 3} })
	op, err := take(t, s, published("fast", 0), spec.Turn{})
	if err != nil {
		t.Fatal(err)
	}
	for end := s.w.Now().Add(time.Minute); !op.State.Ended() && s.w.Now().Before(end); op, _ = s.loop.Operation(t.Context(), op.ID) {
		if s.loop.Step(t.Context()) > 0 {
			s.w.Advance(10 * time.Millisecond)
		}
	}
	s.loop.cfg.Store = between{s.loop.cfg.Store, func() { s.live(time.Minute, time.Second) }}
	r, _ := newest(t, s)
	if op.State != spec.OperationDone || r.Outcome != spec.OperationDone || r.Sum().Sent != 3 || len(s.loop.receipts.all) > 0 {
		t.Errorf("%s: %s, %d visits; %d are still written", op.State, briefly(r), r.Sum().Sent, len(s.loop.receipts.all))
	}
}
