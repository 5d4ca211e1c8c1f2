package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) planCommand() *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "show what deploy would do, changing nothing",
		Description: "Compares the manifest with what is deployed, and says what clients notice: the rules that differ once all new replicas are ready, " +
			"connections that are open to replicas that go, canaries, gaps, services and ports that nobody answers any more, and how much is to be downloaded. The notes name the defaults that differ from Compose's.\n\n" +
			"Example:\n   dunnage plan -f compose.yaml",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "as in deploy"},
			&cli.BoolFlag{Name: "remove-orphans", Usage: "as in deploy"},
			&cli.BoolFlag{Name: "rules", Usage: "list the packet rules that come and go"},
			jsonFlag(),
		},
		Action: p.withAgent(p.plan),
	}
}

func (p *program) plan(ctx context.Context, c *cli.Context, agent *api.Client) error {
	m, r, err := p.deployRequest(c)
	if err != nil {
		return err
	}
	p.warnOf(m)
	prev, err := agent.Preview(ctx, r)
	if err != nil {
		return withPlaces(ctx, agent, m, err)
	}
	p.tellTroubles(ctx, agent, r.Project.Name)
	prev.Notes = append(m.Notes, prev.Notes...)
	if c.Bool("json") {
		return p.printJSON(prev)
	}
	return p.printPreview(prev, c.Bool("rules"))
}

var changeColours = map[spec.Change]int{
	spec.ChangeCreate: green, spec.ChangeStart: green, spec.ChangeReplace: yellow, spec.ChangeScale: yellow,
	spec.ChangeUpdate: yellow, spec.ChangeRemove: red, spec.ChangeNone: grey, spec.ChangeOrphan: grey,
}

func (p *program) printPreview(v spec.Preview, withRules bool) error {
	heading := fmt.Sprintf("project %s: new\n", v.Project)
	if v.From > 0 {
		heading = fmt.Sprintf("project %s: against release %d\n", v.Project, v.From)
	}
	if err := p.print(heading); err != nil {
		return err
	}
	t := table{columns: []column{{name: "SERVICE"}, {name: "CHANGE"}, {name: "REPLICAS"}, {name: "ORDER", drop: 1}, {name: "BECAUSE OF", drop: 2}}}
	moves := false
	for _, s := range v.Services {
		moves = moves || s.Change != spec.ChangeNone && s.Change != spec.ChangeOrphan
		t.rows = append(t.rows, previewRow(s))
	}
	if err := p.write(t); err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range v.Services {
		if s.Gap != "" {
			p.paragraph(&b, "gap: ", s.Name+": "+s.Gap, 0)
		}
		if s.Canary != "" {
			p.paragraph(&b, "canary: ", s.Name+": "+s.Canary, 0)
		}
		if s.Warm != "" {
			p.paragraph(&b, "warm: ", s.Name+": "+s.Warm, 0)
		}
	}
	for _, pull := range v.Pull {
		missing := "size unknown"
		if pull.Known {
			missing = size(pull.Size)
		}
		fmt.Fprintf(&b, "pull: %s (%s)\n", printable(pull.Ref), missing)
	}
	for _, s := range v.Secrets {
		fmt.Fprintf(&b, "secret: %s\n", printable(s))
	}
	if v.Rules.Added+v.Rules.Removed > 0 {
		fmt.Fprintf(&b, "rules: %d added, %d removed\n", v.Rules.Added, v.Rules.Removed)
	}
	if withRules {
		for _, l := range v.Rules.Lines {
			colour := green
			if strings.HasPrefix(l, "-") {
				colour = red
			}
			b.WriteString(p.paintOut(colour, printable(l)) + "\n")
		}
	}
	if v.Draining > 0 {
		fmt.Fprintf(&b, "drain: %s open to replicas that go\n", counted(v.Draining, "connection"))
	}
	for _, n := range v.Notes {
		fmt.Fprintf(&b, "note: %s\n", printable(n))
	}
	if !moves && v.To == 0 {
		b.WriteString(nothing(v) + "\n")
	}
	return p.print(b.String())
}

// nothing says that a deploy changes nothing, and what comes of the lines above
// all the same.
func nothing(v spec.Preview) string {
	text := "nothing to do"
	if len(v.Pull) > 0 {
		text += ", unless a pull brings another image"
	}
	if v.Rules.Added+v.Rules.Removed > 0 {
		text += fmt.Sprintf("; the rules change by themselves when all replicas of release %d are ready", v.From)
	}
	return text
}

func previewRow(s spec.ServicePreview) row {
	replicas := fmt.Sprint(s.To)
	if s.From != s.To {
		replicas = fmt.Sprintf("%d -> %d", s.From, s.To)
	}
	order := ""
	if s.Change == spec.ChangeReplace {
		order = string(s.Order)
	}
	return row{
		cells:   []string{printable(s.Name), string(s.Change), replicas, order, printable(strings.Join(s.Changed, ", "))},
		colours: map[int]int{1: changeColours[s.Change]},
	}
}
