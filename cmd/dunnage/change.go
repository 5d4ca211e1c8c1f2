package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

// changeFlags are those of every verb that changes a deployed project.
func changeFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "don't wait for the outcome"},
		jsonFlag(),
	)
}

// changeAction makes an action out of a function that turns arguments into the
// change they ask for.
func (p *program) changeAction(request func(*cli.Context) (spec.ChangeRequest, error)) cli.ActionFunc {
	return p.withAgent(func(ctx context.Context, c *cli.Context, agent *api.Client) error {
		r, err := request(c)
		if err != nil {
			return err
		}
		if r.Turn, err = turn(c); err != nil {
			return err
		}
		name, err := p.project(c)
		if err != nil {
			return err
		}
		op, err := agent.Change(ctx, name, r)
		if r.Kind == "down" && errors.Is(err, spec.ErrNotFound) {
			p.warn("%s is not deployed: nothing to do", name)
			if c.Bool("json") {
				return p.printJSON(spec.Operation{Project: name, Kind: r.Kind, State: spec.OperationUnchanged, Started: p.now(), Ended: p.now()})
			}
			return nil
		}
		if err != nil {
			return p.lostAnswer(ctx, spec.Operation{Project: name, Kind: r.Kind}, err)
		}
		return p.see(ctx, c, agent, op)
	})
}

// ofServices is the request of verbs whose arguments are services.
func ofServices(c *cli.Context) (spec.ChangeRequest, error) {
	return spec.ChangeRequest{Kind: c.Command.Name, Services: c.Args().Slice()}, nil
}
