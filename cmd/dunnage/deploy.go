package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/manifest"
	"dunnage/spec"
)

func (p *program) deployCommand() *cli.Command {
	return &cli.Command{
		Name:  "deploy",
		Usage: "make this host run what the manifest declares",
		Description: "Sends the manifest to the agent and follows until every service that it changes is ready, or the earlier release is back. " +
			"When a replica fails, it shows what that one wrote last, and what the check printed that it failed by. " +
			"It ends with a warning if the agent knows of something wrong with the host or with the way to the project's ports. " +
			"Services that didn't change aren't touched. Interrupting this command doesn't stop the deploy. " +
			"While another change is at work on the project, it is refused unless --wait or --take-over says otherwise.\n\n" +
			"Example:\n   dunnage deploy -f compose.yaml",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "don't wait for the outcome"},
			&cli.BoolFlag{Name: "force", Usage: "replace the replicas even of services that didn't change"},
			&cli.BoolFlag{Name: "remove-orphans", Usage: "remove services that are no longer in the manifest, once the release has converged"},
			waitFlag(), takeOverFlag(),
			jsonFlag(),
		},
		Action: p.withAgent(p.deploy),
	}
}

func (p *program) deploy(ctx context.Context, c *cli.Context, agent *api.Client) error {
	p.deploys = true
	m, r, err := p.deployRequest(c)
	if err != nil {
		return err
	}
	p.warnOf(m)
	op, err := agent.Deploy(ctx, r)
	if err != nil {
		err = p.lostAnswer(ctx, spec.Operation{Project: r.Project.Name, Kind: "deploy"}, err)
		return withPlaces(ctx, agent, m, err)
	}
	return p.see(ctx, c, agent, op)
}

// withPlaces adds to a refusal where the manifest names secrets that the agent
// doesn't have: the agent hasn't seen the files.
func withPlaces(ctx context.Context, agent *api.Client, m manifest.Result, err error) error {
	if !errors.Is(err, spec.ErrRefused) || len(m.Project.Secrets) == 0 {
		return err
	}
	there, _, failed := agent.Secrets(ctx, "")
	if failed != nil {
		return err // which says enough
	}
	hints := []string{hintOf(err)}
	for _, d := range m.Project.Secrets {
		known := slices.ContainsFunc(there, func(s spec.SecretStatus) bool {
			return s.Name == d.Store && (s.Project == "" || s.Project == m.Project.Name)
		})
		if !known && !d.Optional && d.Origin == spec.OriginSet {
			hints = append(hints, m.Places[d.Name]+": not in the store")
		}
	}
	return &exitCode{code: exitError, err: err, hint: strings.TrimSpace(strings.Join(hints, "\n  "))}
}

// deployRequest is what deploy sends and plan asks about, and the manifest it is from.
func (p *program) deployRequest(c *cli.Context) (manifest.Result, spec.DeployRequest, error) {
	if c.Args().Present() {
		return manifest.Result{}, spec.DeployRequest{}, &usageError{
			message: c.Command.Name + " takes no services: it makes the whole manifest true",
			hint:    "services that didn't change aren't touched; a manifest is named with --file",
		}
	}
	t, err := turn(c)
	if err != nil {
		return manifest.Result{}, spec.DeployRequest{}, err
	}
	m, err := p.load(c, true)
	return m, spec.DeployRequest{Turn: t, Project: m.Project, Secrets: m.Secrets, Inactive: m.Inactive, RemoveOrphans: c.Bool("remove-orphans"), Force: c.Bool("force")}, err
}

// waitFlag and takeOverFlag say how a change stands to another one that is at
// work on the project.
func waitFlag() cli.Flag {
	return &cli.BoolFlag{Name: "wait", Usage: "begin when the change at work on the project has ended"}
}

func takeOverFlag() cli.Flag {
	return &cli.BoolFlag{Name: "take-over", Usage: "end the change at work on the project, and those that wait for it"}
}

func turn(c *cli.Context) (spec.Turn, error) {
	t := spec.Turn{Wait: c.Bool("wait"), TakeOver: c.Bool("take-over")}
	if t.Wait && t.TakeOver {
		return t, &usageError{message: "--wait and --take-over exclude each other", hint: "give one of them"}
	}
	return t, nil
}
