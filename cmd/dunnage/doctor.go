package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/netns"
	"dunnage/spec"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check the host, the agent, its rules, secrets and services, and say what to do",
		Description: "Everything is looked at side by side, so that there is an answer within a second while containerd hangs, and within two or so while a disk or the agent does. " +
			"What is wrong comes first, then what may go wrong (warn), then what is well. " +
			"Where no agent answers, the host alone is looked at, and whether its rules are as the agent left them.\n\n" +
			"The exit code is 3 if anything is wrong, 4 if no agent answers, and 0 otherwise, also with warnings. " +
			"A rollout is well, and one that is paused or has failed is a warning, as long as as many replicas serve as before.\n\n" +
			"--fix removes what belongs to no replica and no project of this agent, such as the writable layer of a container that somebody deleted by hand, " +
			"has the kernel forget connections to addresses that nobody has, and says what it removed. It repairs nothing else, and touches nothing of others.\n\n" +
			"Example:\n   dunnage doctor",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "fix", Usage: "remove what belongs to nobody"},
			jsonFlag(),
		},
		Action: p.doctor,
	}
}

// askTime is what the agent gets to answer each of doctor's questions; its own
// checks are over before that.
const askTime = 2500 * time.Millisecond

func (p *program) doctor(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	agent, err := p.connect(c.String("host"))
	var all []spec.Finding
	if err == nil {
		defer agent.Close()
		ctx, cancel := context.WithTimeout(c.Context, askTime)
		_, err = agent.Version(ctx)
		cancel()
	}
	switch {
	case silent(err) && !strings.HasPrefix(c.String("host"), "ssh://"):
		all = withoutAgent(c.Context, c.String("host"), err)
	case err != nil:
		return err
	default:
		all = askAgent(c.Context, agent, c.Bool("fix"))
	}
	worstFirst(all)
	if c.Bool("json") {
		if err := p.printJSON(all); err != nil {
			return err
		}
	} else if err := p.printFindings(all); err != nil {
		return err
	}
	bad, checks := checked(all)
	switch {
	case silent(err):
		return &exitCode{code: exitNoAgent, err: err}
	case bad > 0:
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("%d of %d checks found something wrong", bad, checks)}
	}
	return nil
}

// silent reports whether nobody answers: there is no agent, or it hangs.
func silent(err error) bool {
	return errors.Is(err, api.ErrNoAgent) || errors.Is(err, spec.ErrUnavailable)
}

// withoutAgent looks at what there is to see of the host.
func withoutAgent(ctx context.Context, host string, err error) []spec.Finding {
	o := localOptions(strings.TrimPrefix(host, "unix://"))
	next := "`systemctl status dunnage` and `journalctl -u dunnage` say why"
	if s := new(api.SilentError); errors.As(err, &s) && s.Pid != 0 {
		next = s.Hint()
	}
	rules := check{"rules", func(ctx context.Context) []spec.Finding { return examineLeft(ctx, o.runDir) }}
	cgroups := func(context.Context) []spec.Finding { return hostCgroups(cgroupRoot) }
	all := examine(ctx, examineTime, append([]check{rules}, hostChecks(o, cgroups)...))
	switch f := all[0]; {
	case f.OK && !f.Warn:
		next += "; containers and traffic go on without it"
	case f.OK:
		next += "; containers go on without it, and traffic as long as nobody changes its rules"
	default:
		next += "; containers go on without it, but nobody repairs its rules"
	}
	return append([]spec.Finding{{Check: "agent", Text: api.Text(err), Next: next}}, all...)
}

// examineLeft says whether the kernel still has what the agent left, which it
// doesn't say itself.
func examineLeft(ctx context.Context, runDir string) []spec.Finding {
	damage, err := netns.LeftDamage(ctx, runDir)
	if err != nil {
		return []spec.Finding{warned("once the agent answers, `dunnage doctor` looks at them", "not known whether the kernel's rules are as the agent left them: %v", err)}
	}
	if len(damage) == 0 {
		return fine("the kernel's rules, routes and links are as the agent left them")
	}
	out := make([]spec.Finding, len(damage))
	for i, d := range damage {
		out[i] = wrong("an agent that answers repairs it within a second", "changed since the agent looked last: %s", d.What)
	}
	return out
}

// askAgent puts all questions side by side, so that one that hangs holds up no
// other.
func askAgent(ctx context.Context, agent *api.Client, fix bool) []spec.Finding {
	failed := func(err error) []spec.Finding {
		why, next := spec.SplitProblem(api.Text(err))
		return []spec.Finding{wrong(cmp.Or(next, "`dunnage events --no-follow` and the agent's log say more"), "the agent doesn't say: %s", why)}
	}
	limit := askTime
	if fix {
		limit = fixTime + askTime
	}
	status := sync.OnceValues(func() (spec.Status, error) {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		return agent.Status(ctx)
	})
	type answer struct {
		secrets []spec.SecretStatus
		key     spec.KeyStatus
	}
	secrets := sync.OnceValues(func() (answer, error) {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		all, key, err := agent.Secrets(ctx, "")
		return answer{all, key}, err
	})
	more := make(chan []spec.Finding, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		found, err := agent.Examine(ctx, fix)
		if err != nil {
			found = failed(err)
			found[0].Check = "agent"
		}
		more <- found
	}()
	all := examine(ctx, askTime, []check{
		{"host", func(context.Context) []spec.Finding {
			st, err := status()
			if err != nil {
				return failed(err)
			}
			known, _ := secrets() // whether they are locked is told of there
			return examineHost(st, known.key)
		}},
		{"rules", func(ctx context.Context) []spec.Finding {
			rules, err := agent.Rules(ctx)
			if err != nil {
				return failed(err)
			}
			return []spec.Finding{examineRules(rules)}
		}},
		{"secrets", func(context.Context) []spec.Finding {
			s, err := secrets()
			if err != nil {
				return failed(err)
			}
			return append([]spec.Finding{examineSecrets(s.secrets, s.key)}, examineBehind(s.secrets)...)
		}},
		{"services", func(context.Context) []spec.Finding {
			st, err := status()
			if err != nil {
				return failed(err)
			}
			return examineServices(st)
		}},
	})
	return append(all, <-more...)
}

// checked counts the checks, and those that found something wrong; one may find
// several things.
func checked(all []spec.Finding) (bad, checks int) {
	wrong := map[string]bool{}
	for _, f := range all {
		wrong[f.Check] = wrong[f.Check] || !f.OK
	}
	for _, w := range wrong {
		if w {
			bad++
		}
	}
	return bad, len(wrong)
}

// printFindings leaves as much room for the names as the longest one needs.
func (p *program) printFindings(all []spec.Finding) error {
	width := 0
	for _, f := range all {
		width = max(width, len(f.Check))
	}
	indent := len("WRONG") + 2 + width + 2
	var b strings.Builder
	for _, f := range all {
		word := p.paintOut(green, "ok   ")
		switch {
		case !f.OK:
			word = p.paintOut(red, "WRONG")
		case f.Warn:
			word = p.paintOut(yellow, "warn ")
		}
		fmt.Fprintf(&b, "%s  %-*s  ", word, width, f.Check)
		lines := p.wrapped(f.Text, indent)
		if f.Next != "" {
			lines = append(lines, p.wrapped(f.Next, indent)...)
		}
		b.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", indent)) + "\n")
	}
	return p.print(b.String())
}

// examineHost tells what keeps the agent from looking or acting, and what others
// have set up that may stop traffic.
func examineHost(s spec.Status, key spec.KeyStatus) []spec.Finding {
	var out []spec.Finding
	for _, problem := range s.Problems {
		if key.Locked == "" || !strings.HasPrefix(problem, "secrets are locked") { // else examineSecrets tells
			what, next := spec.SplitProblem(problem)
			f := spec.Finding{Check: "host", Text: what, Next: cmp.Or(next, "the agent tries again by itself; `journalctl -u dunnage` says more")}
			out = append(out, ofDisk(f))
		}
	}
	for _, warning := range s.Warnings {
		what, next := spec.SplitProblem(warning)
		out = append(out, ofDisk(spec.Finding{Check: "host", OK: true, Warn: true, Text: what, Next: next}))
	}
	if !slices.ContainsFunc(out, func(f spec.Finding) bool { return f.Check == "host" }) {
		out = append(out, spec.Finding{Check: "host", OK: true, Text: "nothing keeps the agent from looking and acting"})
	}
	return out
}

// ofDisk puts what the agent says of the disk beside what is found there.
func ofDisk(f spec.Finding) spec.Finding {
	if text, ok := strings.CutPrefix(f.Text, "disk: "); ok {
		f.Check, f.Text = "disk", text
	}
	return f
}

func examineRules(r spec.RuleSet) spec.Finding {
	f := spec.Finding{Check: "rules", OK: r.Rendered == r.Kernel, Text: "the kernel's rules are what they should be"}
	if !f.OK {
		f.Text, f.Next = "the kernel's rules differ from what they should be", "`dunnage net rules --diff` shows where; a running agent repairs them within a second"
		if why, next := spec.SplitProblem(r.Held); why != "" {
			f.Text, f.Next = f.Text+", and stay so: "+why, cmp.Or(next, f.Next)
		}
	}
	return f
}

// examineSecrets tells of an open store also when the next start would find it locked.
func examineSecrets(all []spec.SecretStatus, key spec.KeyStatus) spec.Finding {
	f := spec.Finding{Check: "secrets", OK: true, Text: fmt.Sprintf("%s can be opened with the key from %s", counted(len(all), "secret"), key.Source)}
	if len(all) == 0 {
		f.Text = "there are none; the key is from " + key.Source
	}
	switch {
	case key.Unset && len(all) == 0:
		what, next := spec.SplitProblem(key.Locked)
		f.Text, f.Next = "there are none yet: "+what, next
	case key.Locked != "":
		f.OK = false
		f.Text, f.Next = spec.SplitProblem(key.Locked)
		f.Next = cmp.Or(f.Next, "put that right, then `dunnage unlock`")
	case key.Lost != "":
		what, next := spec.SplitProblem(key.Lost)
		f.OK, f.Text = false, "secrets are open, but the next start of the agent finds them locked: "+what
		f.Next = cmp.Or(next, "put the key right now") + "; where nobody has it, `dunnage secret rotate-key` makes a new one while they are open"
	case key.Next != "":
		f.Text += ", still"
		f.Next = "the agent was started with another source: `dunnage secret rotate-key` moves the key to " + key.Next
	}
	return f
}

// examineBehind tells of projects that run another version of a secret than the
// current one. What a manifest brings is left out: the next deploy brings its own.
func examineBehind(all []spec.SecretStatus) []spec.Finding {
	var out []spec.Finding
	for _, s := range all {
		for _, u := range s.Behind {
			if s.Origin == spec.OriginManifest {
				continue
			}
			next := fmt.Sprintf("`dunnage events -p %s --since 24h` says why; `dunnage secret set %s` with the same value tries again", u.Project, s.SecretID)
			if slices.Contains(s.Versions, u.Version) {
				next += fmt.Sprintf(", `dunnage secret rollback %s --to %d` makes version %d the current one again", s.SecretID, u.Version, u.Version)
			}
			out = append(out, spec.Finding{
				Check: "secrets", Text: fmt.Sprintf("project %s runs version %d of the secret %s; the current one is %d", u.Project, u.Version, s.SecretID, s.Version),
				Next: next,
			})
		}
	}
	return out
}

func examineServices(s spec.Status) []spec.Finding {
	var out []spec.Finding
	replicas, services := 0, 0
	var notes []spec.Finding
	for _, project := range s.Projects {
		if project.Paused != "" {
			out = append(out, examinePaused(project))
		}
		for _, service := range project.Services {
			if service.Stopped {
				notes = append(notes, stoppedNote(project.Name, service)...)
				continue
			}
			services, replicas = services+1, replicas+max(service.Ready, len(service.Serving()))
			for _, r := range service.Replicas {
				if r.Hung != 0 {
					f := wrong(fmt.Sprintf("`dunnage restart -p %s %s` replaces it alone, and kills the shim; `ps -o pid,stat,args -p %d` shows why it hangs (%s)", r.Project, spec.ShortReplica(r.Service, r.Replica), r.Hung, spec.ProcessStates),
						"%s: its shim (process %d) doesn't answer containerd; it serves on, but no command can be run in it", r.Replica, r.Hung)
					f.Check = "services"
					out = append(out, f)
				}
			}
			if service.Waiting != "" && project.Paused == "" {
				out = append(out, examineWaiting(project, service, s.At))
			}
		}
	}
	if !slices.ContainsFunc(out, func(f spec.Finding) bool { return !f.OK || f.Warn }) {
		out = append(out, spec.Finding{Check: "services", OK: true, Text: fmt.Sprintf("%s of %s ready", counted(replicas, "replica"), counted(services, "service"))})
	}
	return append(out, notes...)
}

// examinePaused tells of a rollout that stands still. As long as all is served as
// before, that is for somebody to decide, and no outage.
func examinePaused(p spec.ProjectStatus) spec.Finding {
	f := spec.Finding{
		Check: "services", OK: true, Warn: true, Text: fmt.Sprintf("the rollout of project %s stands still: %s", p.Name, p.Paused),
		Next: fmt.Sprintf("`dunnage rollout resume -p %s` goes on, `dunnage rollback -p %s` goes back", p.Name, p.Name),
	}
	for _, s := range p.Services {
		if s.Waiting != "" && (s.Before == 0 || !servedAsBefore(p, s)) {
			f.OK, f.Warn = false, false
		}
		if serves := s.Meanwhile(); serves != "" {
			f.Text += "; " + s.Name + ": " + serves
		}
	}
	return f
}

// examineWaiting tells of a service that isn't as wanted. While a release takes
// over that is as it should be, and one that has failed is no outage as long as the
// one before serves.
func examineWaiting(p spec.ProjectStatus, s spec.ServiceStatus, now time.Time) spec.Finding {
	f := spec.Finding{Check: "services", Next: fmt.Sprintf("`dunnage logs -p %s %s` shows what it writes", p.Name, s.Name)}
	if s.LeftDead != "" {
		s.Waiting, f.Next = spec.SplitProblem(s.Waiting)
	}
	serves := s.Meanwhile()
	f.Text = fmt.Sprintf("%s/%s: %s", p.Name, s.Name, notReady(s))
	if serves != "" {
		f.Text += "; " + serves
	}
	underWay := p.Rolling || serves != ""
	first := !slices.ContainsFunc(p.Services, func(s spec.ServiceStatus) bool { return s.Before > 0 }) // there is nothing to go back to
	switch {
	case !underWay, p.Failed != "" && s.LeftDead != "" && first: // who is left dead is said, and what starts it
	case p.Failed != "":
		f.OK = s.Before > 0 && servedAsBefore(p, s)
		f.Warn = f.OK
		f.Text += fmt.Sprintf("; release %d has failed", p.Release)
		if !strings.Contains(f.Text, p.Failed) {
			f.Text += ": " + p.Failed
		}
		if !first {
			f.Next += fmt.Sprintf(", `dunnage rollback -p %s` goes back", p.Name)
		}
	case servedAsBefore(p, s):
		f.OK = true
		f.Next = ""
	case len(s.Serving()) > 0 || s.HeldUntil.After(now): // fewer for now, as it is replaced stop-first
		f.OK, f.Warn = true, true
	}
	return f
}

// servedAsBefore reports whether as many replicas serve as the release before has,
// or the desired one, if that wants fewer.
func servedAsBefore(p spec.ProjectStatus, s spec.ServiceStatus) bool {
	need := s.Wanted
	if p.Rolling {
		need = min(s.Before, s.Wanted)
	}
	return len(s.Serving()) >= need
}

// notReady counts who is ready, and says what the service waits for.
func notReady(s spec.ServiceStatus) string {
	text := fmt.Sprintf("%d of %d ready", s.Ready, s.Wanted)
	if why := beyondCount(s); why != "" {
		text += ": " + why
	}
	return text
}

// stoppedNote tells of published ports that refuse clients because somebody
// wanted it so, and has perhaps forgotten.
func stoppedNote(project string, s spec.ServiceStatus) []spec.Finding {
	if len(s.Ports) == 0 {
		return nil
	}
	f := warned(fmt.Sprintf("`dunnage start -p %s %s` starts it", project, s.Name),
		"%s/%s was stopped on request: connections to %s are refused", project, s.Name, ports(s.Ports))
	f.Check = "services"
	return []spec.Finding{f}
}
