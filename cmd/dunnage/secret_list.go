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

func (p *program) secretLsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list secrets, without anything of their values",
		Description: "A project's own secret is called PROJECT/NAME; -p lists those of one project only. AGE is the current VERSION's; KEPT are those that `dunnage secret rollback` may go to. RUNS names the projects that have another one: the rollout of the current version failed or is yet to come, or somebody rolled back past it.\n\n" +
			"Example:\n   dunnage secret ls",
		Flags:  []cli.Flag{jsonFlag()},
		Action: p.withAgent(p.secretLs),
	}
}

func (p *program) secretLs(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	secrets, key, err := agent.Secrets(ctx, c.String("project-name"))
	if err != nil {
		return err
	}
	if key.Locked != "" {
		p.warn("%s", key.Locked)
	}
	if c.Bool("json") {
		return p.printJSON(secrets)
	}
	if project := c.String("project-name"); len(secrets) == 0 && project != "" {
		p.noSecrets(ctx, agent, project)
	}
	t := table{columns: []column{{name: "NAME"}, {name: "VERSION"}, {name: "AGE", drop: 1}, {name: "KEPT", drop: 2}, {name: "USED BY", drop: 3}}}
	behind := slices.ContainsFunc(secrets, func(s spec.SecretStatus) bool { return len(s.Behind) > 0 })
	if behind {
		t.columns = append(t.columns, column{name: "RUNS"})
	}
	for _, s := range secrets {
		cells := []string{printable(s.SecretID.String()), fmt.Sprint(s.Version), age(p.now(), s.Created), versions(s.Versions), printable(strings.Join(s.UsedBy, ", "))}
		if behind {
			cells = append(cells, printable(runs(s.Behind)))
		}
		t.rows = append(t.rows, row{cells: cells})
	}
	return p.write(t)
}

// runs says which projects have which other version: "shop runs 17".
func runs(behind []spec.SecretUse) string {
	var words []string
	for _, u := range behind {
		words = append(words, fmt.Sprintf("%s runs %d", u.Project, u.Version))
	}
	return strings.Join(words, ", ")
}

// noSecrets says that a project has none, and whether there is such a project.
func (p *program) noSecrets(ctx context.Context, agent *api.Client, project string) {
	if _, err := agent.Releases(ctx, project); errors.Is(err, spec.ErrNotFound) {
		p.note(project + " has no secrets, and no such project is known")
		return
	}
	p.note(project + " has no secrets of its own; without -p all are listed")
}

// versions lists numbers, with those that follow each other as a range: 1, 4-6.
func versions(list []int) string {
	var words []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		word := fmt.Sprint(list[i])
		if j > i {
			word += fmt.Sprintf("-%d", list[j])
		}
		words = append(words, word)
		i = j + 1
	}
	return strings.Join(words, ", ")
}

func (p *program) secretRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove secrets with all their versions",
		ArgsUsage: "NAME...",
		Description: "A secret that a service uses is not removed; the error names the services.\n\n" +
			"Example:\n   dunnage secret rm old-token",
		Action: p.withAgent(p.secretRm),
	}
}

// secretRm goes on after a failure, so that one secret in use keeps no other.
func (p *program) secretRm(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	var ids []spec.SecretID
	for _, name := range c.Args().Slice() {
		id, err := readID(name, c.String("project-name"))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	var errs []error
	for _, id := range ids {
		err := agent.RemoveSecret(ctx, id, spec.Actor{})
		if err == nil {
			err = p.print("removed " + id.String() + "\n")
		}
		if isLost(err) { // nor will it answer the others
			errs = append(errs, lostChange(ctx, id.String()+" was removed", "`dunnage secret ls`", err))
			break
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *program) secretCompareCommand() *cli.Command {
	return &cli.Command{
		Name:      "compare",
		Usage:     "say whether a value is the secret's current one",
		ArgsUsage: "NAME",
		Description: "Reads the value as set does, and prints equal, with exit code 0, or different, with exit code 3. Any other code says that they couldn't be compared: 1 where the secret isn't there or can't be opened. " +
			"This takes the place of reading a value back, which nothing does.\n\n" +
			"Example:\n   dunnage secret compare db-password <password.txt",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "from-file", Usage: "the value is every byte of `PATH`"}},
		Action: p.withAgent(p.secretCompare),
	}
}

func (p *program) secretCompare(ctx context.Context, c *cli.Context, agent *api.Client) error {
	id, err := secretArg(c)
	if err != nil {
		return err
	}
	value, err := p.secretValue(ctx, c, id, false)
	if err != nil {
		return err
	}
	defer value.Clear()
	equal, err := agent.CompareSecret(ctx, id, value, spec.Actor{})
	if err != nil {
		return err
	}
	if equal {
		return p.print("equal\n")
	}
	if err := p.print("different\n"); err != nil {
		return err
	}
	return &exitCode{code: exitDifferent}
}
