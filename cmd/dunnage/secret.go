package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) secretCommand() *cli.Command {
	return &cli.Command{
		Name:  "secret",
		Usage: "keep passwords and keys, and bring new ones to who uses them",
		Description: "Values are sealed in the agent's store and delivered to containers on a tmpfs; nothing gives them back. " +
			"A secret belongs to the host, where every project may use it, or with -p to one project: then it is called PROJECT/NAME. " +
			"Everybody who may use the agent may list secrets and read the audit record. The rest is for root and, where the host has a group " + secretsGroup + ", for its members only.\n\n" +
			"Example:\n   openssl rand -hex 32 | dunnage secret set db-password",
		Subcommands: []*cli.Command{
			p.secretSetCommand(), p.secretLsCommand(), p.secretRmCommand(), p.secretRollbackCommand(), p.secretCompareCommand(),
			p.secretRotateKeyCommand(), p.secretResetKeyCommand(), p.secretAuditCommand(),
		},
	}
}

func (p *program) secretSetCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "make a new version of a secret, and bring it to who uses it",
		ArgsUsage: "[NAME]",
		Description: "Reads the value from standard input, where the line end of a single line isn't a part of it; on a terminal it asks, and shows nothing. " +
			"The value is never an argument: those stand in the shell's history, and everybody on the host sees them in ps. " +
			"A value that is the current one already makes no version; projects that run another one get it.\n\n" +
			"Services that use the secret get it as their x-dunnage.on_secret_change says, by default with new replicas, rolled out as a deploy is. " +
			"Interrupting this command doesn't stop that.\n\n" +
			"Example:\n   openssl rand -hex 32 | dunnage secret set db-password",
		Flags: changeFlags(
			&cli.StringFlag{Name: "from-file", Usage: "the value is every byte of `PATH`"},
			&cli.StringFlag{Name: "from-env-file", Usage: "set many: each KEY=VALUE line of `PATH` is a secret of that name. A value in quotes is what stands between them, and nothing else in it is read as anything"},
			&cli.IntFlag{Name: "keep", Usage: fmt.Sprintf("keep the last `N` versions from now on (default: as before, at first %d); those in use stay anyway", spec.KeptVersions)},
			&cli.IntFlag{Name: "generate", Usage: "make a value of `N` random letters and digits, of 5.95 bits each; 22 and more can't be guessed, fewer than 16 are refused"},
		),
		Action: p.withAgent(p.secretSet),
	}
}

func (p *program) secretSet(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if n := c.Int("keep"); c.IsSet("keep") && (n < 1 || n > spec.MaxKeep) {
		return &usageError{message: fmt.Sprintf("--keep %d: 1 to %d versions can be kept", n, spec.MaxKeep)}
	}
	r, err := p.setRequest(ctx, c)
	if err != nil {
		return err
	}
	r.Keep = c.Int("keep")
	defer func() {
		for _, v := range r.Values {
			v.Clear()
		}
	}()
	changes, err := agent.SetSecrets(ctx, r)
	if err != nil {
		return lostChange(ctx, "the new version was stored", "`dunnage secret ls`", err)
	}
	if !c.Bool("json") {
		p.tellNamesakes(ctx, agent, changes)
	}
	return p.seeSecrets(ctx, c, agent, changes)
}

// tellNamesakes says which of two secrets of one name a project gets.
func (p *program) tellNamesakes(ctx context.Context, agent *api.Client, changes []spec.SecretChange) {
	all, _, err := agent.Secrets(ctx, "")
	if err != nil {
		return // what was set is set
	}
	for _, change := range changes {
		for _, other := range all {
			switch {
			case other.Name != change.Name || other.Project == change.Project:
			case change.Project == "":
				p.note(fmt.Sprintf("%s is another secret, and goes before this one in project %s", other.SecretID, other.Project))
			case other.Project == "":
				p.note(fmt.Sprintf("%s goes before the host's %s in project %s", change.SecretID, other.SecretID, change.Project))
			}
		}
	}
}

// setRequest reads what is to be set from where the flags say.
func (p *program) setRequest(ctx context.Context, c *cli.Context) (r spec.SecretRequest, err error) {
	if c.IsSet("from-env-file") {
		if c.Args().Present() || c.IsSet("from-file") || c.IsSet("generate") {
			return r, &usageError{message: "with --from-env-file the names and the values come from the file", hint: "leave NAME, --from-file and --generate out"}
		}
		r.Project = c.String("project-name")
		r.Values, err = p.envFileValues(c.String("from-env-file"))
		return r, err
	}
	id, err := secretArg(c)
	if err != nil {
		return r, err
	}
	if c.IsSet("from-file") && c.IsSet("generate") {
		return r, &usageError{message: "--from-file and --generate exclude each other", hint: "give one of them"}
	}
	var value spec.SecretValue
	if c.IsSet("generate") {
		value, err = generated(c.Int("generate"))
	} else {
		value, err = p.secretValue(ctx, c, id, true)
	}
	if err != nil {
		return r, err
	}
	return spec.SecretRequest{Project: id.Project, Values: map[string]spec.SecretValue{id.Name: value}}, nil
}

func (p *program) secretRollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "make an earlier version current again",
		ArgsUsage: "NAME",
		Description: "Takes the version that was current before the present one, or the one that --to names, and brings it to who uses it, as set does. " +
			"`dunnage secret ls` shows which are kept.\n\n" +
			"Example:\n   dunnage secret rollback db-password",
		Flags: changeFlags(&cli.IntFlag{Name: "to", Usage: "take version `N`, an earlier or a later one"}),
		Action: p.withAgent(func(ctx context.Context, c *cli.Context, agent *api.Client) error {
			id, err := secretArg(c)
			if err != nil {
				return err
			}
			if c.IsSet("to") && c.Int("to") < 1 {
				return usagef("--to %d: versions are numbered from 1", c.Int("to"))
			}
			change, err := agent.RollbackSecret(ctx, id, c.Int("to"), spec.Actor{})
			if err != nil {
				return lostChange(ctx, "the earlier version is the current one again", "`dunnage secret ls`", err)
			}
			return p.seeSecrets(ctx, c, agent, []spec.SecretChange{change})
		}),
	}
}

// secretArg is the secret that the one argument names. What stands after it may
// be a value, which is not to be repeated.
func secretArg(c *cli.Context) (spec.SecretID, error) {
	name, project := c.Args().First(), c.String("project-name")
	switch {
	case c.Args().Len() > 1 || strings.Contains(name, "="):
		return spec.SecretID{}, &usageError{
			message: "a secret's value isn't taken from the command line: there it stands in the shell's history, and everybody on the host sees it in ps",
			hint:    "pipe it in: `" + c.Command.HelpName + " NAME <FILE`, or leave it out and be asked; a value that stood there is worth replacing",
		}
	case name == "":
		return spec.SecretID{}, &usageError{message: "which secret?", hint: "usage: " + c.Command.HelpName + " " + c.Command.ArgsUsage}
	}
	return readID(name, project)
}

// readID reads a secret's name, which may have its project before it as ls
// prints it.
func readID(name, project string) (spec.SecretID, error) {
	id := spec.SecretID{Project: project, Name: name}
	if of, rest, ok := strings.Cut(name, "/"); ok && of != "" {
		if project != "" && project != of {
			return id, &usageError{message: fmt.Sprintf("%s is a secret of project %s, and -p says %s", quote(name), of, project), hint: "leave one of them out"}
		}
		id = spec.SecretID{Project: of, Name: rest}
	}
	if err := id.Check(); err != nil {
		return id, &usageError{message: api.Text(err)}
	}
	return id, nil
}

// seeSecrets tells of new versions, and follows the operations that bring them
// to who uses them.
func (p *program) seeSecrets(ctx context.Context, c *cli.Context, agent *api.Client, changes []spec.SecretChange) error {
	asJSON := c.Bool("json")
	if !asJSON {
		if err := p.printChanges(changes); err != nil {
			return err
		}
	}
	ended, err := p.followAll(ctx, c, agent, changes)
	if !asJSON {
		return err
	}
	for _, change := range changes {
		for i, op := range change.Operations {
			if now, ok := ended[op.ID]; ok {
				change.Operations[i] = now
			}
		}
	}
	return errors.Join(p.printJSON(changes), err)
}

// printChanges prints a line a secret.
func (p *program) printChanges(changes []spec.SecretChange) error {
	for _, s := range changes {
		line := fmt.Sprintf("%s  version %d", s.SecretID, s.Version)
		if s.Unchanged {
			line += " has this value already"
		}
		switch {
		case len(s.UsedBy) > 0:
			line += "  used by " + strings.Join(s.UsedBy, ", ")
		case len(s.Later) == 0:
			line += "  used by nobody yet"
		}
		if err := p.print(printable(line) + "\n"); err != nil {
			return err
		}
		for _, project := range s.Later {
			p.note(project + " gets it after the change that is at work on it, or its pause")
		}
	}
	return nil
}

// followAll follows each operation of the changes to its end and tells how it
// went. The error has the worst outcome's exit code; those before the last are
// told at once.
func (p *program) followAll(ctx context.Context, c *cli.Context, agent *api.Client, changes []spec.SecretChange) (map[string]spec.Operation, error) {
	ended := map[string]spec.Operation{}
	var worst *exitCode
	for _, op := range operationsOf(changes) {
		now, err := p.await(ctx, c, agent, op)
		ended[op.ID] = now
		switch {
		case err != nil || c.Bool("json"):
		case now.State.Ended():
			err = errors.Join(p.printOutcome(now), p.tellReceipt(ctx, agent, now))
		default:
			err = p.print(begun(now))
		}
		if err != nil {
			return ended, err
		}
		var bad *exitCode
		if !errors.As(verdict(now), &bad) {
			continue
		}
		if worst != nil {
			p.complain(worst)
			bad.code = max(bad.code, worst.code)
		}
		worst = bad
	}
	if worst == nil {
		return ended, nil
	}
	return ended, worst
}

// operationsOf lists the operations of changes, each once: one may bring several
// secrets to a project.
func operationsOf(changes []spec.SecretChange) (ops []spec.Operation) {
	for _, s := range changes {
		for _, op := range s.Operations {
			if !slices.ContainsFunc(ops, func(o spec.Operation) bool { return o.ID == op.ID }) {
				ops = append(ops, op)
			}
		}
	}
	return ops
}
