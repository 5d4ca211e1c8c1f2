package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check the agent, the packet rules, secrets and services, and say what to do",
		Description: "The exit code is 3 if anything is wrong, and 0 if all is well.\n\n" +
			"Example:\n   dunnage doctor",
		Flags:  []cli.Flag{jsonFlag()},
		Action: p.withAgent(p.doctor),
	}
}

// finding is one line of doctor.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"` // what to do
}

func (p *program) doctor(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	status, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	secrets, key, err := agent.Secrets(ctx, "")
	if err != nil {
		return err
	}
	rules, err := agent.Rules(ctx)
	if err != nil {
		return err
	}
	var all []finding
	all = append(all, examineHost(status, key)...)
	all = append(all, examineRules(rules), examineSecrets(secrets, key))
	all = append(all, examineBehind(secrets)...)
	all = append(all, examineServices(status)...)
	if c.Bool("json") {
		err = p.printJSON(all)
	} else {
		err = p.printFindings(all)
	}
	wrong := 0
	for _, f := range all {
		if !f.OK {
			wrong++
		}
	}
	if err == nil && wrong > 0 {
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("%d of %d checks found something wrong", wrong, len(all))}
	}
	return err
}

// findingIndent is where a finding's text begins.
const findingIndent = 17

func (p *program) printFindings(all []finding) error {
	var b strings.Builder
	for _, f := range all {
		word := p.paintOut(green, "ok   ")
		if !f.OK {
			word = p.paintOut(red, "WRONG")
		}
		fmt.Fprintf(&b, "%s  %-8s  ", word, f.Check)
		lines := p.wrapped(f.Text, findingIndent)
		if f.Next != "" {
			lines = append(lines, p.wrapped(f.Next, findingIndent)...)
		}
		b.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", findingIndent)) + "\n")
	}
	return p.print(b.String())
}

// examineHost tells what keeps the agent from looking or acting, and what others
// have set up that may stop traffic.
func examineHost(s spec.Status, key spec.KeyStatus) []finding {
	var out []finding
	for _, problem := range s.Problems {
		if key.Locked == "" || !strings.HasPrefix(problem, "secrets are locked") { // else examineSecrets tells
			out = append(out, finding{Check: "host", Text: problem})
		}
	}
	if len(out) == 0 {
		out = append(out, finding{Check: "host", OK: true, Text: "containerd answers, and no rule of others is in the way"})
	}
	return out
}

func examineRules(r spec.RuleSet) finding {
	f := finding{Check: "rules", OK: r.Rendered == r.Kernel, Text: "the kernel's rules are what they should be"}
	if !f.OK {
		f.Text, f.Next = "the kernel's rules differ from what they should be", "`dunnage net rules --diff` shows where; a running agent repairs them within a second"
		if r.Held != "" {
			f.Next = r.Held
		}
	}
	return f
}

// examineSecrets tells of an open store also when the next start would find it locked.
func examineSecrets(all []spec.SecretStatus, key spec.KeyStatus) finding {
	f := finding{Check: "secrets", OK: true, Text: fmt.Sprintf("%s can be opened with the key from %s", counted(len(all), "secret"), key.Source)}
	if len(all) == 0 {
		f.Text = "there are none; the key is from " + key.Source
	}
	switch {
	case key.Unset && len(all) == 0:
		f.Text = "there are none yet; " + key.Locked
	case key.Locked != "":
		f.OK, f.Text = false, key.Locked
	case key.Lost != "":
		f.OK, f.Text = false, "secrets are open, but the next start of the agent finds them locked: "+key.Lost
		f.Next = "put the key right now; where nobody has it, `dunnage secret rotate-key` makes a new one while they are open"
	case key.Next != "":
		f.Text += ", still"
		f.Next = "the agent was started with another source: `dunnage secret rotate-key` moves the key to " + key.Next
	}
	return f
}

// examineBehind tells of projects that run another version of a secret than the
// current one. What a manifest brings is left out: the next deploy brings its own.
func examineBehind(all []spec.SecretStatus) []finding {
	var out []finding
	for _, s := range all {
		for _, u := range s.Behind {
			if s.Origin == spec.OriginManifest {
				continue
			}
			out = append(out, finding{
				Check: "secrets", Text: fmt.Sprintf("project %s runs version %d of the secret %s; the current one is %d", u.Project, u.Version, s.SecretID, s.Version),
				Next: fmt.Sprintf("`dunnage events -p %s` says why; `dunnage secret set %s` with the same value tries again, `dunnage secret rollback %s` takes version %d back", u.Project, s.SecretID, s.SecretID, s.Version),
			})
		}
	}
	return out
}

func examineServices(s spec.Status) []finding {
	var out []finding
	replicas, services := 0, 0
	for _, project := range s.Projects {
		if project.Paused != "" {
			out = append(out, finding{
				Check: "services", Text: fmt.Sprintf("the rollout of project %s stands still: %s", project.Name, project.Paused),
				Next: fmt.Sprintf("`dunnage rollout resume -p %s` goes on, `dunnage rollback -p %s` goes back", project.Name, project.Name),
			})
		}
		for _, service := range project.Services {
			services, replicas = services+1, replicas+service.Ready
			if service.Waiting != "" && project.Paused == "" {
				out = append(out, finding{
					Check: "services", Text: fmt.Sprintf("%s/%s: %d of %d ready: %s", project.Name, service.Name, service.Ready, service.Wanted, service.Waiting),
					Next: fmt.Sprintf("`dunnage logs -p %s %s` shows what it writes", project.Name, service.Name),
				})
			}
		}
	}
	if len(out) == 0 {
		out = append(out, finding{Check: "services", OK: true, Text: fmt.Sprintf("%s of %s ready", counted(replicas, "replica"), counted(services, "service"))})
	}
	return out
}
