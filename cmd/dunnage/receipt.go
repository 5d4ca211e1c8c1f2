package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) receiptCommand() *cli.Command {
	return &cli.Command{
		Name:      "receipt",
		Usage:     "show what a rollout did, and what clients noticed of it",
		ArgsUsage: "[RELEASE|OPERATION]",
		Description: "Every deploy, rollback, scale, restart of a service and rollout of secrets leaves a receipt, the restart of a single replica none; the newest 20 of a project are kept, also after `dunnage down`. " +
			"Without an argument the newest is shown, else the newest of those of that release: its deploy's, or that of the last rollback to it. The others are named by their operation. --all lists them.\n\n" +
			"The agent visits the published TCP ports as clients do, all the time, and the service addresses of which it knows a port that answers, by a probe or a published port; " +
			"a service of neither, such as a database, isn't seen by it. A receipt counts the visits from its beginning to its end. " +
			"The longest gap is the longest time between two answers of the same address. Each is asked every 50 ms in the first minute and after each change of the rules, so a gap of some 50 ms, or 100 on a busy host, is nobody's outage. " +
			"In the pauses that are longer, as while a rollout is paused or waits, a gap begins with the first visit that was due and not answered. " +
			"DRAINED connections to replaced replicas ended by themselves, CUT ones with the replica, when x-dunnage.drain was over or it died: " +
			"these, and the steps drain and stop, are brought up to date until the last replaced replica is gone. " +
			"A step's time is that in which it was at work on some replica of the service.\n\n" +
			"Example:\n   dunnage receipt 12",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "list all, newest first"}, jsonFlag()},
		Action: p.withAgent(p.receipt),
	}
}

func (p *program) receipt(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 1); err != nil {
		return err
	}
	name, err := p.project(c)
	if err != nil {
		return err
	}
	all, err := agent.Receipts(ctx, name)
	if err != nil {
		return err
	}
	release := 0
	if word := c.Args().First(); word != "" {
		named := func(r spec.Receipt) bool { return r.Operation == word }
		if !slices.ContainsFunc(all, named) {
			if release, err = strconv.Atoi(word); err != nil || release < 1 {
				return &usageError{message: "receipt " + quote(word) + ": neither a release, which is a number from 1, nor an operation that left a receipt", hint: "`dunnage receipt --all` lists both"}
			}
			named = func(r spec.Receipt) bool { return r.Release == release }
		}
		all = slices.DeleteFunc(all, func(r spec.Receipt) bool { return !named(r) })
	}
	switch {
	case c.Bool("all") && c.Bool("json"):
		return p.printJSON(all)
	case c.Bool("all"):
		return p.write(p.receiptTable(all))
	case len(all) == 0 && release > 0:
		return &exitCode{code: exitError, err: fmt.Errorf("release %d of %s has no receipt", release, name),
			hint: fmt.Sprintf("the newest %d are kept: `dunnage receipt -p %s --all` lists them", spec.KeptReceipts, name)}
	case len(all) == 0:
		return &exitCode{code: exitError, err: fmt.Errorf("%s has no receipt yet", name), hint: "the next deploy leaves one"}
	case c.Bool("json"):
		return p.printJSON(all[0])
	}
	return p.printReceipt(all[0])
}

// receiptTable is one line a receipt.
func (p *program) receiptTable(all []spec.Receipt) table {
	t := table{columns: []column{{name: "RELEASE"}, {name: "KIND"}, {name: "OUTCOME"}, {name: "AGE"}, {name: "TOOK", drop: 2}, {name: "VISITS"}, {name: "FAILED"}, {name: "GAP"}, {name: "BY", drop: 1}, {name: "OPERATION", drop: 3}}}
	for _, r := range all {
		sum, spent, gap := r.Sum(), "", ""
		if sum.LongestGap > 0 {
			gap = short(sum.LongestGap.Std())
		}
		if !r.Ended.IsZero() {
			spent = took(r.Ended.Sub(r.Started))
		}
		t.rows = append(t.rows, row{
			cells: []string{
				strconv.Itoa(r.Release), r.Kind, string(r.Outcome), age(p.now(), r.Started), spent,
				thousands(sum.Sent), thousands(sum.Failed), gap, printable(r.Owner), r.Operation,
			},
			colours: map[int]int{2: outcomeColour(r.Outcome), 6: failedColour(sum.Failed)},
		})
	}
	return t
}

func outcomeColour(s spec.OperationState) int {
	switch s {
	case spec.OperationDone:
		return green
	case spec.OperationFailed, spec.OperationRolledBack:
		return red
	}
	return yellow
}

func failedColour(n int) int {
	if n > 0 {
		return red
	}
	return 0
}

// printReceipt shows one for people.
func (p *program) printReceipt(r spec.Receipt) error {
	var b strings.Builder
	head := fmt.Sprintf("%s: %s of release %d", r.Project, called(spec.Operation{Kind: r.Kind}), r.Release)
	if r.From > 0 {
		head += fmt.Sprintf(", after %d", r.From)
	}
	b.WriteString(head + ", by " + cmp.Or(printable(r.Owner), "the agent") + ": " + p.paintOut(outcomeColour(r.Outcome), string(r.Outcome)) + "\n")
	for _, line := range p.receiptLines(r) {
		for i, part := range p.wrapped(line[1], receiptIndent) {
			label := line[0]
			if i > 0 {
				label = ""
			}
			b.WriteString(fmt.Sprintf("%-*s", receiptIndent, label) + part + "\n")
		}
	}
	if err := p.print(b.String()); err != nil || len(r.Steps) == 0 {
		return err
	}
	if err := p.print("\n"); err != nil {
		return err
	}
	return p.write(p.stepTable(r))
}

// receiptIndent is where the lines of a receipt begin, behind their labels.
const receiptIndent = 10

// receiptLines are a receipt's lines, each with its label.
func (p *program) receiptLines(r spec.Receipt) (out [][2]string) {
	add := func(label, format string, args ...any) {
		out = append(out, [2]string{label, fmt.Sprintf(format, args...)})
	}
	if r.Reason != "" {
		add("reason", "%s", r.Reason)
	}
	if r.Cause != "" {
		add("cause", "%s", r.Cause)
	}
	when := r.Started.UTC().Format(time.DateTime + " UTC")
	switch {
	case r.Ended.IsZero():
		when += ", goes on"
	default:
		when += ", took " + took(r.Ended.Sub(r.Started))
	}
	add("began", "%s", when)
	if !r.Interrupted.IsZero() {
		add("", "the agent was restarted at %s: what is counted is since then", r.Interrupted.UTC().Format(time.TimeOnly+" UTC"))
	}
	add("visits", "%s", visitsText(r))
	for _, v := range r.Visits {
		if v.Failed > 0 {
			add("", "%s: %s of %s failed%s", visitedText(v.VisitTarget), thousands(v.Failed), thousands(v.Sent), reasonsText(v.Reasons))
		}
		switch {
		case v.Unreached > 0:
			add("", "%s: none of %s has ever succeeded", visitedText(v.VisitTarget), counted(v.Unreached, "visit"))
		case v.State == spec.ReachUnreachable:
			add("", "%s: unreachable at the end", visitedText(v.VisitTarget))
		}
	}
	add("drains", "%s", drainsText(r))
	add("rules", "%s, %d added, %d removed", counted(r.Commits, "commit"), r.Rules.Added, r.Rules.Removed)
	var words []string
	for _, s := range slices.Sorted(maps.Keys(r.Images)) {
		words = append(words, s+"="+shortDigest(r.Images[s]))
	}
	add("images", "%s", cmp.Or(strings.Join(words, " "), "-"))
	words = nil
	for _, s := range slices.Sorted(maps.Keys(r.Secrets)) {
		words = append(words, fmt.Sprintf("%s version %d", s, r.Secrets[s]))
	}
	if len(words) > 0 {
		add("secrets", "%s", strings.Join(words, ", "))
	}
	return out
}

// visitTime is the time in which a visit of a service that is well is begun and
// answered, with room for a busy host.
const visitTime = 500 * time.Millisecond

// visitsText is what clients noticed, on one line: "1,204 sent, 0 failed,
// longest gap 12 ms".
func visitsText(r spec.Receipt) string {
	sum := r.Sum()
	if sum.Sent == 0 && sum.Unreached > 0 {
		return fmt.Sprintf("%s sent, %s failed", thousands(sum.Unreached), thousands(sum.Unreached))
	}
	switch {
	case sum.Sent > 0:
	case len(r.Visits) == 0:
		return "none: there was no address that the agent could ask"
	case r.Ended.IsZero():
		return "none yet"
	case r.Ended.Sub(r.Started) < visitTime:
		return "none: it was over before a visit had its answer"
	default:
		return "none: no replica took connections for long enough to be asked"
	}
	text := fmt.Sprintf("%s sent, %s failed", thousands(sum.Sent), thousands(sum.Failed))
	if sum.LongestGap > 0 {
		text += ", longest gap " + short(sum.LongestGap.Std())
	}
	return text
}

func visitedText(t spec.VisitTarget) string {
	what := t.Service + " at " + t.Addr.String()
	if t.Port > 0 {
		what = fmt.Sprintf("%s, port %d (%s)", t.Service, t.Port, t.Addr.Addr())
	}
	if t.From == spec.FromHost {
		what += " from the host"
	}
	return what
}

func reasonsText(reasons map[string]int) string {
	var words []string
	for _, why := range slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b))
	}) {
		words = append(words, fmt.Sprintf("%s (%s)", why, thousands(reasons[why])))
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, ", ")
}

// drainsText says what became of the connections to replaced replicas.
func drainsText(r spec.Receipt) string {
	if r.Drained+r.Cut+r.Draining == 0 {
		return "no connection to a replaced replica"
	}
	text := fmt.Sprintf("%s drained, %d cut", counted(r.Drained, "connection"), r.Cut)
	if r.Draining > 0 {
		text += fmt.Sprintf(", %d still open", r.Draining)
	}
	return text
}

// barWidth is that of the bars of steps, in columns.
const barWidth = 28

// stepTable shows the steps, on a terminal as bars along the time.
func (p *program) stepTable(r spec.Receipt) table {
	t := table{columns: []column{{name: "STEP"}, {name: "SERVICE"}, {name: "AT"}, {name: "TOOK"}, {name: "TIMES", drop: 2}}}
	if p.terminal.stdout {
		t.columns = append(t.columns, column{name: "WHEN", drop: 1})
	}
	var end time.Duration
	for _, s := range r.Steps {
		end = max(end, s.At.Add(s.Took.Std()).Sub(r.Started))
	}
	for _, s := range r.Steps {
		at := s.At.Sub(r.Started)
		cells := []string{s.Name, printable(s.Service), short(at), short(s.Took.Std()), strconv.Itoa(s.Times)}
		if p.terminal.stdout {
			cells = append(cells, bar(at, s.Took.Std(), end))
		}
		t.rows = append(t.rows, row{cells: cells})
	}
	return t
}

// bar marks a part of a whole, with one column at least.
func bar(from, took, whole time.Duration) string {
	if whole <= 0 {
		return "▇"
	}
	begin := min(int(int64(from)*barWidth/int64(whole)), barWidth-1)
	width := max(int((int64(took)*barWidth+int64(whole)/2)/int64(whole)), 1)
	return strings.Repeat(" ", begin) + strings.Repeat("▇", min(width, barWidth-begin))
}

// short is a duration as people read it, down to milliseconds: 12 ms, 1.3s, 2m5s.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return took(d)
}

// thousands is a number with commas: 1,204.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// tellReceipt prints what clients noticed of an operation that has left a
// receipt.
func (p *program) tellReceipt(ctx context.Context, agent *api.Client, op spec.Operation) error {
	if op.Release == 0 || op.State == spec.OperationUnchanged || op.Kind == "down" {
		return nil
	}
	all, err := agent.Receipts(ctx, op.Project)
	if err != nil {
		return nil //nolint:nilerr // an older agent knows none, and the outcome has been told
	}
	if r, ok := receiptOf(op, all); ok && receiptLine(r) != "" {
		return p.print(receiptLine(r) + "\n")
	}
	return nil
}

// receiptOf is the receipt that the operation left or, where it let a rollout go on
// that another one had begun, that of the rollout. One with its ID that began before
// it is another's, of an agent before that numbered its operations alike.
func receiptOf(op spec.Operation, all []spec.Receipt) (spec.Receipt, bool) {
	steers := op.Kind == "promote" || op.Kind == "resume"
	for _, r := range all {
		before := r.Started.Before(op.Started)
		own := r.Operation == op.ID && !before
		if own || steers && before && (r.Ended.IsZero() || !r.Ended.Before(op.Started)) {
			return r, true
		}
	}
	return spec.Receipt{}, false
}

// receiptLine is a receipt in a line, under the number that `dunnage receipt`
// takes; empty when nobody could notice anything.
func receiptLine(r spec.Receipt) string {
	var told []string
	if sum := r.Sum(); sum.Sent > 0 {
		visits := " visits"
		if sum.Sent == 1 {
			visits = " visit"
		}
		text := thousands(sum.Sent) + visits + ", " + thousands(sum.Failed) + " failed"
		if sum.LongestGap > 0 {
			text += ", longest gap " + short(sum.LongestGap.Std())
		}
		told = append(told, text)
	}
	for _, v := range r.Visits {
		if v.State == spec.ReachUnreachable {
			told = append(told, visitedText(v.VisitTarget)+" is unreachable")
		}
	}
	if r.Draining > 0 {
		told = append(told, counted(r.Draining, "connection")+" still open to old replicas")
	}
	if len(told) == 0 {
		return ""
	}
	return fmt.Sprintf("receipt %d: %s", r.Release, strings.Join(told, "; "))
}
