package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

// see follows an operation to its end and tells how it went; with --detach it
// only says that it has begun.
func (p *program) see(ctx context.Context, c *cli.Context, agent *api.Client, op spec.Operation) error {
	op, err := p.await(ctx, c, agent, op)
	switch {
	case err != nil:
		return err
	case !op.State.Ended() && c.Bool("json"):
		return p.printJSON(op)
	case !op.State.Ended():
		return p.print(begun(op))
	}
	return p.tellOutcome(ctx, c, agent, op)
}

// begun is what --detach says.
func begun(op spec.Operation) string {
	return fmt.Sprintf("%s: %s started; watch it with `dunnage events`, see `dunnage ps -p %s`\n", op.Project, called(op), op.Project)
}

// called is what an operation is to people.
func called(op spec.Operation) string {
	switch {
	case op.Kind == "secret":
		return "rollout of secrets"
	case op.State == spec.OperationPaused && (op.Kind == "resume" || op.Kind == "promote"): // what it let go on
		return "rollout"
	}
	return op.Kind
}

// await follows an operation to its end, but not with --detach.
func (p *program) await(ctx context.Context, c *cli.Context, agent *api.Client, op spec.Operation) (spec.Operation, error) {
	for _, w := range op.Warnings {
		p.warn("%s", w)
	}
	if c.Bool("detach") || op.State.Ended() {
		return op, nil
	}
	ended, err := p.follow(ctx, agent, op)
	if err != nil {
		return op, p.lostSight(ctx, ended, err)
	}
	for _, w := range ended.Warnings[min(len(op.Warnings), len(ended.Warnings)):] {
		p.warn("%s", w)
	}
	return ended, nil
}

// follow shows an operation's events until it has ended. With an error the
// operation is as the events have left it.
func (p *program) follow(ctx context.Context, agent *api.Client, op spec.Operation) (spec.Operation, error) {
	show := p.newProgress()
	defer show.close()
	showing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); show.rollouts.follow(showing, agent, op.Project) }()
	defer func() { stop(); <-done }()
	ended, err := agent.Follow(ctx, op.ID, func(e spec.Event) {
		show.event(e)
		op = seenIn(op, e)
	})
	if err != nil {
		return op, err
	}
	return ended, nil
}

// seenIn is an operation as an event of it shows it: once its release has a
// number, that is in the store, and so what it shall do outlives the agent.
func seenIn(op spec.Operation, e spec.Event) spec.Operation {
	if e.Kind == spec.EventRelease && !op.State.Ended() {
		op.State = spec.OperationRolling
	}
	return op
}

// lostAnswer explains an agent that went away, or a command that was interrupted,
// before there was an answer to the order for op; other errors stay as they are.
func (p *program) lostAnswer(ctx context.Context, op spec.Operation, err error) error {
	if !isLost(err) && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return err
	}
	op.State = spec.OperationWaiting
	return p.lostSight(ctx, op, err)
}

// isLost reports whether the agent went away, or fell silent, before it answered
// a request; otherwise nothing was sent, or it did answer.
func isLost(err error) bool {
	return !isAnswer(err) && !errors.Is(err, api.ErrNoAgent) && errors.Is(err, spec.ErrUnavailable)
}

// lostChange explains that a change which is no operation may have been made
// though the agent didn't answer; look says how to see. Other errors stay as they are.
func lostChange(ctx context.Context, what, look string, err error) error {
	if !isLost(err) {
		return err
	}
	code := exitNoAgent
	var silent *api.SilentError
	if ctx.Err() != nil && errors.As(err, &silent) { // the text of the interruption says nothing
		code, err = exitInterrupted, fmt.Errorf("interrupted: %w", silent)
	}
	return &exitCode{
		code: code, err: fmt.Errorf("it isn't known whether %s: %w", what, err),
		hint: firstly(err) + look + ", and give the command again if it isn't done",
	}
}

// firstly begins the next step with how to get an agent that answers.
func firstly(err error) string {
	var s *api.SilentError
	switch {
	case !errors.As(err, &s) && errors.Is(err, context.Canceled):
		return "the agent may still do it: see "
	case s == nil:
		return "start the agent, see "
	}
	return "the agent may still do it once it answers again: " + s.Hint() + "; then see "
}

// lostSight explains that the operation goes on without this command, if it does.
func (p *program) lostSight(ctx context.Context, op spec.Operation, err error) error {
	hint := fmt.Sprintf("watch it with `dunnage events`, see `dunnage ps -p %s`", op.Project)
	unsure := fmt.Sprintf("it isn't known whether the agent had stored it: %s`dunnage ps -p %s`, and give the command again if it isn't done", firstly(err), op.Project)
	if slices.Contains([]string{"deploy", "rollback", "scale", "restart"}, op.Kind) { // which leave a release
		unsure = fmt.Sprintf("it isn't known whether the agent had stored it: %s`dunnage history -p %s` and `dunnage ps -p %s`, and give the command again if it isn't there", firstly(err), op.Project, op.Project)
	}
	switch {
	case ctx.Err() != nil && op.ID == "": // no answer so far
		return &exitCode{code: exitInterrupted, err: fmt.Errorf("interrupted in the middle of the %s of %s", called(op), op.Project), hint: unsure}
	case ctx.Err() != nil:
		return &exitCode{code: exitInterrupted, err: fmt.Errorf("interrupted: the %s of %s goes on", called(op), op.Project), hint: hint}
	}
	restarted := errors.Is(err, spec.ErrNotFound) // the next agent doesn't know the operation
	if restarted || errors.Is(err, api.ErrNoAgent) || errors.Is(err, spec.ErrUnavailable) {
		hint = fmt.Sprintf("the agent goes on with it when it is back: start it, then see `dunnage ps -p %s`", op.Project)
		var silent *api.SilentError
		errors.As(err, &silent)
		stored := op.State != spec.OperationPulling && op.State != spec.OperationWaiting
		switch {
		case !stored:
			hint = unsure
		case silent != nil:
			hint = fmt.Sprintf("it goes on with it once it answers again: %s; then see `dunnage ps -p %s`", silent.Hint(), op.Project)
		case restarted:
			hint = fmt.Sprintf("the agent that is there now goes on with it: see `dunnage ps -p %s`", op.Project)
		}
		became := "is gone"
		if silent != nil {
			became = "fell silent"
		}
		return &exitCode{code: exitNoAgent, err: fmt.Errorf("the agent %s in the middle of the %s of %s: %w", became, called(op), op.Project, err), hint: hint}
	}
	return err
}

// tellOutcome prints the last lines and decides the exit code.
func (p *program) tellOutcome(ctx context.Context, c *cli.Context, agent *api.Client, op spec.Operation) error {
	if c.Bool("json") {
		if err := p.printJSON(op); err != nil {
			return err
		}
	} else if err := errors.Join(p.printOutcome(op), p.tellReceipt(ctx, agent, op)); err != nil {
		return err
	}
	p.tellTroubles(ctx, agent, op.Project)
	return verdict(op)
}

// verdict is an ended operation as an error, nil when all is well.
func verdict(op spec.Operation) error {
	switch {
	case op.State == spec.OperationRolledBack:
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("the %s of %s was rolled back: %s", called(op), op.Project, why(op)), hint: nextStep(op)}
	case op.State == spec.OperationPaused:
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("the %s of %s is paused: %s", called(op), op.Project, why(op)), hint: nextStep(op)}
	case op.State != spec.OperationFailed:
		return nil
	case op.Release == 0 && len(op.Services) == 0 && op.Kind != "secret" && op.Kind != "down": // it never came so far as to change anything
		if strings.Contains(op.Cause, "nothing was changed") { // and it says what to do
			return &exitCode{code: exitError, err: fmt.Errorf("the %s of %s failed: %s", called(op), op.Project, why(op))}
		}
		return &exitCode{code: exitError, err: fmt.Errorf("the %s of %s failed, nothing was changed: %s", called(op), op.Project, why(op)), hint: "put it right and try again"}
	}
	return &exitCode{code: exitNotConverged, err: fmt.Errorf("the %s of %s failed: %s", called(op), op.Project, why(op)), hint: nextStep(op)}
}

// why is an operation's cause as one line, and below it what the check printed
// last by which a replica failed, and what that replica wrote last.
func why(op spec.Operation) string {
	text := printable(op.Cause)
	if len(op.Output) > 0 {
		text += "\n  the check that failed printed last:"
	}
	for _, line := range op.Output {
		text += "\n    " + printable(line)
	}
	if len(op.Log) > 0 {
		text += "\n  " + op.Replica + " wrote last:"
	}
	for _, line := range op.Log {
		text += "\n    " + printable(line)
	}
	return text
}

// nextStep names where to look after a failure: at the log of the replica that
// failed, if it wrote anything, by its full name, since another of its number
// may run by now, and at the events, which lead up to the cause.
func nextStep(op spec.Operation) string {
	logs := func(of string) string { return fmt.Sprintf("`dunnage logs -p %s %s`, ", op.Project, of) }
	places := ""
	switch i := slices.IndexFunc(op.Services, func(s spec.ServiceOutcome) bool { return s.Ready < s.Wanted }); {
	case op.Replica != "" && len(op.Log) > 0:
		places = logs(op.Replica)
	case op.Replica == "" && i >= 0:
		places = logs(op.Services[i].Name)
	}
	return fmt.Sprintf("see %s`dunnage ps -p %s` and `dunnage events -p %s --since 10m`", places, op.Project, op.Project)
}

func (p *program) printOutcome(op spec.Operation) error {
	t := table{columns: []column{{name: "SERVICE"}, {name: "CHANGE"}, {name: "READY"}, {name: "TIME", drop: 1}, {name: "PORTS", drop: 2}}}
	for _, s := range op.Services {
		spent, open := "", ""
		if s.Duration > 0 {
			spent = took(s.Duration.Std())
		}
		if s.Ready > 0 { // else nobody answers there
			open = ports(s.Ports)
		}
		colour := green
		if s.Ready < s.Wanted {
			colour = red
		}
		t.rows = append(t.rows, row{
			cells:   []string{printable(s.Name), string(s.Change), fmt.Sprintf("%d/%d", s.Ready, s.Wanted), spent, open},
			colours: map[int]int{2: colour},
			below:   printable(s.Detail),
		})
	}
	if len(t.rows) > 0 {
		if err := p.write(t); err != nil {
			return err
		}
	}
	for _, volume := range op.Removed {
		if err := p.print(fmt.Sprintf("volume %s removed, with its data\n", printable(volume))); err != nil {
			return err
		}
	}
	if len(op.Forgot) > 0 {
		if err := p.print(spec.ForgottenText(op.Forgot) + "; `dunnage gc` removes the images that nobody else needs\n"); err != nil {
			return err
		}
	}
	return p.print(lastLine(op) + "\n")
}

// lastLine sums an operation up.
func lastLine(op spec.Operation) string {
	spent := took(op.Ended.Sub(op.Started))
	release := ""
	if op.Release > 0 && op.Kind != "down" {
		release = fmt.Sprintf(", release %d", op.Release)
	}
	switch op.State {
	case spec.OperationUnchanged:
		return fmt.Sprintf("%s: unchanged%s: nothing to do", op.Project, release)
	case spec.OperationDone:
		return fmt.Sprintf("%s: %s done%s, in %s", op.Project, called(op), release, spent)
	case spec.OperationRolledBack:
		return fmt.Sprintf("%s: %s rolled back after %s", op.Project, called(op), spent)
	case spec.OperationPaused:
		return fmt.Sprintf("%s: %s paused%s, after %s", op.Project, called(op), release, spent)
	}
	return fmt.Sprintf("%s: %s failed after %s", op.Project, called(op), spent)
}

// progress shows an operation's events on stderr: bars for images on a
// terminal, lines for the rest.
type progress struct {
	p        *program
	pulls    *pulls
	rollouts *rollouts
}

func (p *program) newProgress() *progress {
	drawn := p.newPulls()
	return &progress{p: p, pulls: drawn, rollouts: &rollouts{pulls: drawn, bars: map[string]*rolloutBar{}}}
}

func (s *progress) close() {
	s.rollouts.close()
	s.pulls.close()
}

func (s *progress) event(e spec.Event) {
	if e.Pull != nil {
		s.pulls.show(*e.Pull)
		return
	}
	if e.Kind == spec.EventDone || e.Kind == spec.EventFailed || e.Kind == spec.EventRemoved && e.Replica == "" {
		return // the outcome says it better
	}
	// Progress that can't be shown is no reason to stop following.
	_, _ = io.WriteString(s.pulls.lines(), s.p.eventLine(e)+"\n")
}

// eventLine is an event for people who follow one project.
func (p *program) eventLine(e spec.Event) string {
	subject := e.Service
	if subject == "" {
		subject = e.Project
	}
	text := e.Message
	if text == "" {
		text = strings.TrimSpace(e.Replica + " " + string(e.Kind))
	}
	colour := 0
	switch e.Kind {
	case spec.EventLate, spec.EventUnhealthy, spec.EventExited, spec.EventProblem:
		colour = yellow
	case spec.EventConverged:
		colour = green
	}
	if subject != "" && !strings.HasPrefix(text, subject+":") {
		text = subject + ": " + text
	}
	return p.paint(colour, printable(text))
}
