package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say what becomes of connections to a port, an address, a service or a replica",
		ArgsUsage: "PORT[/udp] | ADDRESS | SERVICE | REPLICA",
		Description: "Follows the first packet of a connection through the kernel's rules as they are now, of all tools " +
			"and of both backends, and says where it arrives or which rule ends it. A step marked with ? is one that may take the " +
			"packet: the rule asks for what isn't known of it, as a list that another program keeps. The number in brackets before a rule is how many packets it has taken so far. " +
			"Without --from the client is somebody of the world. The exit code is 3 if connections don't arrive at replicas that are ready, and at nothing else, on all of the ways: also where they wait or are refused because no replica is ready, or the service is stopped; " +
			"one that is warm, and named, is well at its own address, and so is a job that has ended well. Asked for a replica, it tells of no other.\n\n" +
			"Example:\n   dunnage explain 8080\n   dunnage explain tcp://198.51.100.7:8080 --from 203.0.113.9\n   dunnage explain shop/web\n   dunnage explain web-1",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "`ADDRESS` of the client; an address of the host: the host itself"},
			&cli.BoolFlag{Name: "brief", Usage: "leave out the rules that only lead to others, and say in a line how a sticky service chooses"},
			jsonFlag(),
		},
		Action: p.withAgent(p.explain),
	}
}

func (p *program) explain(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	r := spec.ExplainRequest{Asked: c.Args().First(), Project: p.namedProject(c)}
	if from := c.String("from"); from != "" {
		var err error
		if r.From, err = netip.ParseAddr(from); err != nil {
			return &usageError{message: fmt.Sprintf("--from %q is not an address", from), hint: "give the client's IPv4 or IPv6 address, for example --from 203.0.113.9"}
		}
	}
	e, err := agent.Explain(ctx, r)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = p.printJSON(e)
	} else {
		err = p.printExplanation(e, c.Bool("brief"))
	}
	if err == nil && !e.OK {
		text := "connections don't arrive as they should"
		if slices.ContainsFunc(e.Ways, func(w spec.ExplainedWay) bool { return w.OK }) {
			text = "not all connections arrive as they should"
		}
		return &exitCode{code: exitNotConverged, err: fmt.Errorf("%s: %s", printable(e.Asked), text)}
	}
	return err
}

// explainIndent is where the text of a step begins.
const explainIndent = 5

func (p *program) printExplanation(e spec.Explanation, brief bool) error {
	var b strings.Builder
	colour := green
	if !e.OK {
		colour = red
	}
	unpublished := len(e.Services) == 0 // then no step of the way is to blame
	if unpublished {
		p.paragraph(&b, "", e.Verdict, colour)
		b.WriteByte('\n')
	}
	for _, w := range e.Ways {
		p.explainWay(&b, w, brief)
		if !w.OK && w.Verdict != e.Verdict {
			p.paragraph(&b, "", w.Verdict, red)
		}
		b.WriteByte('\n')
	}
	for _, r := range e.Replicas {
		name := r.ShortName(e.Replicas)
		if strings.HasSuffix(e.Asked, r.Replica) { // the agent doesn't list its namesake then
			name = r.Replica
		}
		fmt.Fprintf(&b, "%s: %s", printable(name), p.paintOut(stateColours[r.State], string(r.State)))
		if r.Health != "" && string(r.Health) != string(r.State) {
			fmt.Fprintf(&b, ", %s", r.Health)
		}
		if !r.Routed {
			b.WriteString(", no rule leads to it")
		}
		if detail := p.replicaDetail(r); detail != "" {
			fmt.Fprintf(&b, ": %s", printable(detail))
		}
		b.WriteByte('\n')
	}
	if e.Holder != "" {
		p.paragraph(&b, "host:  ", e.Holder+" listens on the port", 0)
	}
	for _, n := range e.Next {
		p.paragraph(&b, "next:  ", n, 0)
	}
	if !unpublished {
		p.paragraph(&b, "", e.Verdict, colour)
	}
	return p.print(b.String())
}

// paragraph writes text behind a label, wrapped below it.
func (p *program) paragraph(b *strings.Builder, label, text string, colour int) {
	for i, line := range p.wrapped(text, len(label)) {
		if i > 0 {
			label = strings.Repeat(" ", len(label))
		}
		fmt.Fprintf(b, "%s%s\n", label, p.paintOut(colour, line))
	}
}

func (p *program) explainWay(b *strings.Builder, w spec.ExplainedWay, brief bool) {
	p.paragraph(b, "", wayHeading(w), 0)
	chosen := false
	for i, s := range w.Steps {
		switch {
		case brief && strings.HasPrefix(s.What, "goes to "):
		case brief && byClient(s):
			if !chosen {
				p.paragraph(b, fmt.Sprintf("?%3d ", i+1), stickyChoice(w.Steps), 0)
			}
			chosen = true
		default:
			p.explainStep(b, i+1, s)
		}
	}
	for _, r := range w.Reach {
		fmt.Fprintf(b, "  => %s\n", arrival(r))
	}
	if text := p.visitor(w); text != "" {
		p.paragraph(b, "visitor:  ", text, 0)
	}
	count := 0
	for _, f := range w.Flows {
		count += f.Count
	}
	if count > 0 || len(w.Stale) > 0 {
		p.paragraph(b, "open:     ", counted(count, "connection"), 0)
	}
	for _, s := range w.Stale {
		p.paragraph(b, "stale:    ", s, yellow)
	}
	for _, s := range w.Unseen {
		p.paragraph(b, "unseen:   ", s, yellow)
	}
}

// byClient reports whether the step is one of the many by which a sticky service
// chooses the replica of a client that isn't known. docs/adr/0016 says how.
func byClient(s spec.TraceStep) bool {
	return s.Maybe && s.Owner == spec.OwnerDunnage && strings.Contains(s.Where, " DUNNAGE-B-") && strings.HasPrefix(s.What, "sent on to ")
}

// stickyChoice says in a line what those steps come to.
func stickyChoice(steps []spec.TraceStep) string {
	const fan = 16 // buckets of each chain; its last rule takes those that no other names
	left, share, sum := map[string]int{}, map[string]int{}, 0
	for _, s := range steps {
		if !byClient(s) {
			continue
		}
		if _, known := left[s.Where]; !known {
			left[s.Where], sum = fan, sum+fan
		}
		n := left[s.Where]
		if strings.Contains(s.Rule, "-s ") {
			n = 1
		}
		left[s.Where] -= n
		share[strings.TrimPrefix(s.What, "sent on to ")] += n
	}
	even := "the same share each"
	var each []string
	for _, to := range slices.Sorted(maps.Keys(share)) {
		each = append(each, fmt.Sprintf("%s %.0f %%", to, 100*float64(share[to])/float64(sum)))
		if d := share[to] - sum/len(share); d < -1 || d > 1 {
			even = ""
		}
	}
	return fmt.Sprintf("sent on to one of %d replicas by the client's address, each client always to the same one, %s; `--from ADDRESS` says to which",
		len(share), cmp.Or(even, strings.Join(each, ", ")))
}

// visitor is what the visitor found there. It calls a place unreachable after
// three visits only, so where the way fails, or the last visit did, it says when
// one succeeded last.
func (p *program) visitor(w spec.ExplainedWay) string {
	r := w.Reached
	if r == nil || r.State == spec.ReachUnknown {
		return ""
	}
	text := string(r.State)
	switch {
	case r.State == spec.ReachReachable && (r.Failed > 0 || !w.OK):
		text = fmt.Sprintf("last reached %s ago", age(p.now(), r.Asked))
	case r.State == spec.ReachUnreachable && r.Detail != "":
		text += ": " + r.Detail
	}
	if r.Addr != w.Packet.To {
		text = fmt.Sprintf("at %s %s", r.Addr, text)
	}
	return text
}

func wayHeading(w spec.ExplainedWay) string {
	from := "from outside"
	if w.Packet.Source.IsValid() {
		from = "from " + w.Packet.Source.String()
	}
	if w.Packet.From == spec.FromHost {
		from = "from the host itself"
	} else if w.In != "" {
		from += " by " + w.In
	}
	to := w.Packet.To.String()
	if w.Packet.To.Port() == 0 {
		to = w.Packet.To.Addr().String()
	}
	heading := fmt.Sprintf("%s to %s://%s", from, w.Packet.Protocol, to)
	if w.Service != "" {
		heading += ", of " + w.Service
	}
	return printable(heading)
}

// explainStep writes a step in two lines: what happens where, and the rule. The
// rule that ends it is written in full.
func (p *program) explainStep(b *strings.Builder, n int, s spec.TraceStep) {
	sign, colour := " ", 0
	switch {
	case s.Ends && !s.Maybe:
		sign, colour = "X", red
	case s.Ends:
		sign, colour = "?", yellow
	case s.Maybe:
		sign = "?"
	}
	where := printable(s.Where)
	if s.Number > 0 {
		where += fmt.Sprintf(" %d", s.Number)
	}
	if s.Answer {
		where = "answer: " + where
	}
	if s.Owner != "" {
		where += " (" + string(s.Owner) + ")"
	}
	label := fmt.Sprintf("%s%3d ", sign, n)
	p.paragraph(b, label, where+": "+s.What, colour)
	if s.Rule == "" {
		return
	}
	rule := s.Rule
	if s.Number > 0 {
		rule = fmt.Sprintf("[%d] %s", s.Packets, s.Rule)
	}
	pad := strings.Repeat(" ", explainIndent)
	if s.Ends {
		p.paragraph(b, pad, rule, colour)
		return
	}
	b.WriteString(p.paintOut(grey, p.fit(pad+printable(rule))) + "\n")
}

func arrival(r spec.Arrival) string {
	who := cmp.Or(r.Replica, r.Link)
	if r.Host {
		who = "the host itself"
	}
	text := r.To.String()
	if r.To.Port() == 0 {
		text = r.To.Addr().String()
	}
	if who != "" {
		text += " " + who
	}
	if r.Chance < 0.9999 {
		text += fmt.Sprintf(" (%.0f %% of the connections)", 100*r.Chance)
	}
	if r.Maybe {
		text += " ?"
	}
	return printable(text)
}
