package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) secretAuditCommand() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "list what was done with secrets, and check the record",
		ArgsUsage: "[NAME]",
		Description: fmt.Sprintf("Lists who set, compared, rolled back or removed what, which replica got which version, and what was refused; the newest %d entries are kept. ", spec.KeptAudit) +
			"WHO is the user behind the request, as the kernel tells. NAME leaves only what was done with one secret, -p with those of one project.\n\n" +
			"Each entry has the hash of the one before it. --verify checks them all and prints the last one's number and hash: " +
			"note it elsewhere, and a later record that hasn't the same entry, which --json shows, isn't the one that was written.\n\n" +
			"Example:\n   dunnage secret audit --verify",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verify", Usage: "check that no entry was changed, taken out or put in"},
			&cli.StringFlag{Name: "since", Usage: "only entries from `WHEN` on: 24h ago, or a time like 2026-11-22T12:00:00Z"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line"},
		},
		Action: p.withAgent(p.secretAudit),
	}
}

func (p *program) secretAudit(ctx context.Context, c *cli.Context, agent *api.Client) error {
	wanted, err := p.auditFilter(c)
	if err != nil {
		return err
	}
	if c.Bool("verify") {
		if c.Bool("json") {
			return &usageError{message: "--verify and --json exclude each other", hint: "give one of them"}
		}
		return p.verifyAudit(ctx, agent)
	}
	t := table{columns: []column{
		{name: "TIME", drop: 1}, {name: "WHO"}, {name: "WHAT"}, {name: "SECRET"}, {name: "VERSION", drop: 2}, {name: "REPLICA", drop: 3}, {name: "DETAIL", cut: leastText},
	}}
	err = agent.SecretAudit(ctx, 1, func(e spec.AuditEntry) error {
		if !wanted(e) {
			return nil
		}
		if c.Bool("json") {
			return p.printJSONLine(e)
		}
		t.rows = append(t.rows, auditRow(e))
		return nil
	})
	if err != nil || c.Bool("json") {
		return err
	}
	return p.write(t)
}

// auditFilter is what NAME, -p and --since leave of the record.
func (p *program) auditFilter(c *cli.Context) (func(spec.AuditEntry) bool, error) {
	if err := wantArgs(c, 0, 1); err != nil {
		return nil, err
	}
	project, about, since := c.String("project-name"), "", time.Time{}
	if name := c.Args().First(); name != "" {
		id, err := readID(name, project)
		if err != nil {
			return nil, err
		}
		about = id.String()
	}
	if text := c.String("since"); text != "" {
		var err error
		if since, err = p.parseSince(text); err != nil {
			return nil, err
		}
	}
	if c.Bool("verify") && (c.Args().Present() || c.IsSet("since")) {
		return nil, &usageError{message: "--verify checks the whole record", hint: "leave NAME and --since out"}
	}
	return func(e spec.AuditEntry) bool {
		return !e.At.Before(since) && slices.ContainsFunc(strings.Split(e.Secret, ", "), func(secret string) bool { // a refusal may name several
			of, _, owned := strings.Cut(secret, "/")
			return (about == "" || secret == about) && (project == "" || owned && of == project)
		})
	}, nil
}

func auditRow(e spec.AuditEntry) row {
	what, detail, version := string(e.Kind), e.Detail, ""
	var colours map[int]int
	if e.Refused != "" {
		what, detail, colours = what+" refused", strings.TrimSpace(e.Detail+" "+e.Refused), map[int]int{2: red}
	}
	if e.Version > 0 {
		version = fmt.Sprint(e.Version)
	}
	return row{
		cells:   []string{e.At.UTC().Format(time.RFC3339), printable(who(e)), what, printable(e.Secret), version, printable(e.Replica), printable(detail)},
		colours: colours,
	}
}

func who(e spec.AuditEntry) string {
	switch {
	case e.User != "":
		return e.User
	case e.UID != nil:
		return fmt.Sprintf("uid %d", *e.UID)
	}
	return "agent"
}

// verifyAudit checks the whole record.
func (p *program) verifyAudit(ctx context.Context, agent *api.Client) error {
	var check auditCheck
	var broken error
	err := agent.SecretAudit(ctx, 1, func(e spec.AuditEntry) error {
		broken = check.add(e)
		return broken
	})
	if err == nil {
		broken = check.end(spec.KeptAudit)
	}
	switch {
	case broken != nil:
		return &exitCode{code: exitError, err: broken, hint: "`dunnage secret audit --json` has the entries"}
	case err != nil:
		return err
	case check.entries == 0:
		return p.print("the audit record has no entries\n")
	}
	if check.first > 1 {
		p.note(fmt.Sprintf("the entries before %d aren't kept any more", check.first))
	}
	return p.print(fmt.Sprintf("%d entries, none changed, missing or put in; the last is %d with hash %s\n", check.entries, check.chain.Last.Seq, check.chain.Last.Hash))
}

// auditCheck checks a record of which the oldest entries may be dropped.
type auditCheck struct {
	chain   spec.AuditChain
	first   uint64 // number of the oldest one
	entries uint64
}

func (a *auditCheck) add(e spec.AuditEntry) error {
	if a.entries == 0 {
		a.first = e.Seq
		if e.Seq > 1 { // it follows one that isn't kept
			a.chain.Last = spec.AuditEntry{Seq: e.Seq - 1, Hash: e.Prev}
		}
	}
	a.entries++
	return a.chain.Check(e)
}

// end refuses a record that begins late though fewer entries than are kept are
// there: somebody else dropped the oldest ones.
func (a *auditCheck) end(kept uint64) error {
	if a.first > 1 && a.entries < kept {
		return fmt.Errorf("audit entries 1 to %d are missing: the newest %d are kept, and only %d are there", a.first-1, kept, a.entries)
	}
	return nil
}
