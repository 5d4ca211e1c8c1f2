package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"dunnage/api"
	"dunnage/spec"
)

// That the agent goes on with what it had begun is only said of what it has
// stored: an order before that ends with it.
func TestTheAgentIsGone(t *testing.T) {
	const unsure, goesOn = "it isn't known whether the agent had stored it: start the agent, see `dunnage history -p shop`", "the agent goes on with it when it is back"
	release := spec.Event{Kind: spec.EventRelease, Project: "shop", Message: "release 13: deploy"}
	for _, c := range []struct {
		state spec.OperationState
		event spec.Event
		hint  string
	}{
		{spec.OperationPulling, spec.Event{Kind: spec.EventPull}, unsure},
		{spec.OperationWaiting, spec.Event{Kind: spec.EventProblem}, unsure},
		{spec.OperationPulling, release, goesOn},
		{spec.OperationWaiting, release, goesOn},
		{spec.OperationRolling, spec.Event{Kind: spec.EventReady}, goesOn},
	} {
		op := seenIn(spec.Operation{Project: "shop", Kind: "deploy", State: c.state}, c.event)
		var e *exitCode
		if err := new(program).lostSight(t.Context(), op, spec.ErrUnavailable); !errors.As(err, &e) || e.code != exitNoAgent || !strings.HasPrefix(e.hint, c.hint) {
			t.Errorf("%s after %s: %+v", c.state, c.event.Kind, e)
		}
	}
}

// An agent that dies before it has answered, or whose place another has taken, is
// told of alike, whatever was asked of it.
func TestTheAgentIsGoneBeforeItAnswers(t *testing.T) {
	broke := fmt.Errorf("the connection broke off: %w", spec.ErrUnavailable)
	down := spec.Operation{Project: "shop", Kind: "down"}
	rolling := down
	rolling.State = spec.OperationRolling
	p := new(program)
	for name, tc := range map[string]struct {
		err  error
		hint string
	}{
		"down":             {p.lostAnswer(t.Context(), down, broke), "it isn't known whether the agent had stored it: start the agent, see `dunnage ps -p shop`, and give the command again if it isn't done"},
		"deploy":           {p.lostAnswer(t.Context(), spec.Operation{Project: "shop", Kind: "deploy"}, broke), "it isn't known whether the agent had stored it: start the agent, see `dunnage history -p shop`"},
		"another is there": {p.lostSight(t.Context(), rolling, spec.ErrNotFound), "the agent that is there now goes on with it: see `dunnage ps -p shop`"},
	} {
		var e *exitCode
		if !errors.As(tc.err, &e) || e.code != exitNoAgent || !strings.HasPrefix(e.hint, tc.hint) || !strings.HasPrefix(e.Error(), "the agent is gone in the middle of the ") {
			t.Errorf("%s: %+v", name, tc.err)
		}
	}
	for _, err := range []error{api.ErrNoAgent, &api.Error{Message: "project shop is busy"}, spec.ErrNotFound} {
		if got := p.lostAnswer(t.Context(), down, err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// A command that is ended before the agent answered says that the agent may do it all
// the same.
func TestInterruptedBeforeTheAgentAnswers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := fmt.Errorf("%w: %w", context.Canceled, &api.SilentError{Host: api.DefaultHost, Pid: 12, State: "T"})
	p := new(program)
	order := spec.Operation{Project: "shop", Kind: "deploy"}
	for name, tc := range map[string]struct {
		err        error
		text, hint string
	}{
		"stopped": {
			p.lostAnswer(ctx, order, stopped), "interrupted in the middle of the deploy of shop",
			"it isn't known whether the agent had stored it: the agent may still do it once it answers again: somebody stopped it: `kill -CONT 12` lets it go on; then see `dunnage history -p shop` and `dunnage ps -p shop`, and give",
		},
		"at once": {
			p.lostAnswer(ctx, order, context.Canceled), "interrupted in the middle of the deploy of shop",
			"it isn't known whether the agent had stored it: the agent may still do it: see `dunnage history -p shop`",
		},
		"set": {
			lostChange(ctx, "the new version was stored", "`dunnage secret ls`", stopped), "it isn't known whether the new version was stored: interrupted: the agent at",
			"the agent may still do it once it answers again: somebody stopped it: `kill -CONT 12`",
		},
		"taken": {
			p.lostSight(ctx, spec.Operation{ID: "1", Project: "shop", Kind: "deploy"}, context.Canceled), "interrupted: the deploy of shop goes on", "watch it with",
		},
	} {
		var e *exitCode
		if !errors.As(tc.err, &e) || e.code != exitInterrupted || !strings.HasPrefix(api.Text(e), tc.text) || !strings.HasPrefix(e.hint, tc.hint) {
			t.Errorf("%s: %+v", name, tc.err)
		}
	}
	if got := lostChange(ctx, "", "", context.Canceled); got != context.Canceled {
		t.Errorf("it became %v", got)
	}
}

// The next step of an error is told also where it only ends with a code.
func TestHintOfAnExitCode(t *testing.T) {
	stopped := &api.SilentError{Host: api.DefaultHost, Pid: 12, State: "T"}
	if got := hintOf(&exitCode{code: exitNoAgent, err: stopped}); got != stopped.Hint() {
		t.Error(got)
	}
	if got := hintOf(&exitCode{code: exitNoAgent, err: stopped, hint: "another"}); got != "another" {
		t.Error(got)
	}
}

// A change that an agent left unanswered may have been made, or may yet be.
func TestTheAgentLeavesAChangeUnanswered(t *testing.T) {
	stopped := &api.SilentError{Host: api.DefaultHost, Pid: 12, State: "T"}
	p := new(program)
	rolling := spec.Operation{Project: "shop", Kind: "deploy", State: spec.OperationRolling}
	for name, tc := range map[string]struct {
		err        error
		text, hint string
	}{
		"set, stopped": {
			lostChange(t.Context(), "the new version was stored", "`dunnage secret ls`", stopped),
			"it isn't known whether the new version was stored: the agent at unix:///run/dunnage/agent.sock doesn't answer: its process 12 is stopped",
			"the agent may still do it once it answers again: somebody stopped it: `kill -CONT 12` lets it go on; then see `dunnage secret ls`, and give the command again if it isn't done",
		},
		"set, gone": {
			lostChange(t.Context(), "the new version was stored", "`dunnage secret ls`", fmt.Errorf("it broke off: %w", spec.ErrUnavailable)),
			"it isn't known whether the new version was stored: it broke off",
			"start the agent, see `dunnage secret ls`, and give",
		},
		"order": {
			p.lostAnswer(t.Context(), rolling, stopped), "the agent fell silent in the middle of the deploy of shop: the agent at",
			"it isn't known whether the agent had stored it: the agent may still do it once it answers again: somebody stopped it: `kill -CONT 12` lets it go on; then see `dunnage history -p shop`",
		},
		"followed": {
			p.lostSight(t.Context(), rolling, stopped), "the agent fell silent in the middle of the deploy of shop: the agent at",
			"it goes on with it once it answers again: somebody stopped it: `kill -CONT 12` lets it go on; then see `dunnage ps -p shop`",
		},
	} {
		var e *exitCode
		if !errors.As(tc.err, &e) || e.code != exitNoAgent || !strings.HasPrefix(api.Text(e), tc.text) || !strings.HasPrefix(e.hint, tc.hint) {
			t.Errorf("%s: %+v", name, tc.err)
		}
	}
	for _, err := range []error{api.ErrNoAgent, &api.Error{Message: "no", Kind: api.KindUnavailable}} {
		if got := lostChange(t.Context(), "", "", err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	sick := []spec.ServiceOutcome{{Name: "web", Wanted: 2}}
	for _, c := range []struct {
		name string
		op   spec.Operation
		want int
	}{
		{"done", spec.Operation{State: spec.OperationDone, Release: 1}, exitDone},
		{"unchanged", spec.Operation{State: spec.OperationUnchanged, Release: 1}, exitDone},
		{"an image can't be pulled", spec.Operation{State: spec.OperationFailed}, exitError},
		{"the first release doesn't converge", spec.Operation{State: spec.OperationFailed, Release: 1, Services: sick}, exitNotConverged},
		{"a stop doesn't come to its end", spec.Operation{State: spec.OperationFailed, Services: sick}, exitNotConverged},
		{"rolled back", spec.Operation{State: spec.OperationRolledBack, Release: 2, Services: sick}, exitNotConverged},
	} {
		p := &program{stderr: io.Discard}
		if got := p.finish(context.Background(), verdict(c.op)); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.name, got, c.want)
		}
	}
}

// The next step names a log only where something may be in it.
func TestNextStep(t *testing.T) {
	short := []spec.ServiceOutcome{{Name: "db", Ready: 1, Wanted: 1}, {Name: "web", Wanted: 2}}
	everywhere := "`dunnage ps -p shop` and `dunnage events -p shop --since 10m`"
	for name, tc := range map[string]struct {
		op   spec.Operation
		want string
	}{
		"a replica that wrote":       {spec.Operation{Replica: "shop-web-1", Log: []string{"panic"}, Services: short}, "see `dunnage logs -p shop shop-web-1`, " + everywhere},
		"one that wrote nothing":     {spec.Operation{Replica: "shop-web-1", Services: short}, "see " + everywhere},
		"a service that isn't ready": {spec.Operation{Services: short}, "see `dunnage logs -p shop web`, " + everywhere},
		"all are ready":              {spec.Operation{Services: short[:1]}, "see " + everywhere},
	} {
		tc.op.Project = "shop"
		if got := nextStep(tc.op); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// So does what was forgotten.
func TestForgottenReleasesAreNamed(t *testing.T) {
	for want, numbers := range map[string][]int{"forgot release 3, with its receipts; ": {3}, "forgot 3 releases, 2 to 5, with their receipts; ": {2, 4, 5}} {
		var out strings.Builder
		p := &program{stdout: &out}
		if err := p.printOutcome(spec.Operation{Project: "shop", Kind: "down", State: spec.OperationDone, Forgot: numbers}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// What was deleted stands in the outcome, also of a command that has failed.
func TestRemovedVolumesAreNamed(t *testing.T) {
	for _, state := range []spec.OperationState{spec.OperationDone, spec.OperationFailed} {
		var out strings.Builder
		p := &program{stdout: &out}
		if err := p.printOutcome(spec.Operation{Project: "shop", Kind: "down", State: state, Removed: []string{"shop_cache", "shop_data"}}); err != nil {
			t.Fatal(err)
		}
		if err := verdict(spec.Operation{Project: "shop", Kind: "down", State: spec.OperationFailed, Cause: "down, but"}); err == nil || err.Error() != "the down of shop failed: down, but" {
			t.Errorf("%v", err)
		}
		if want := "volume shop_cache removed, with its data\nvolume shop_data removed, with its data\nshop: down "; !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: %q", state, out.String())
		}
	}
}
