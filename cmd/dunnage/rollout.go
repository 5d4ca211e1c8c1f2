package main

import (
	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func (p *program) rolloutCommand() *cli.Command {
	return &cli.Command{
		Name:  "rollout",
		Usage: "hold a rollout, or let it go on",
		Description: "A paused rollout starts no further batch and moves no connections; what serves goes on serving. " +
			"A rollout also pauses by itself when a release fails whose failure_action is pause. A deploy ends the pause and begins the rollout of its own release; `dunnage plan` says so before.\n\n" +
			"Example:\n   dunnage rollout pause -p shop",
		Subcommands: []*cli.Command{
			{
				Name: "pause", Usage: "hold the rollout that is under way",
				Description: "Example:\n   dunnage rollout pause -p shop",
				Flags:       changeFlags(), Action: p.steerAction("pause"),
			},
			{
				Name: "resume", Usage: "let a paused rollout go on, or one that has failed and stays, and follow it",
				Description: "Replicas that failed get all their tries again: those that ended start anew, those that run are probed anew and run their accept command once more.\n\nExample:\n   dunnage rollout resume -p shop",
				Flags:       changeFlags(), Action: p.steerAction("resume"),
			},
		},
	}
}

func (p *program) promoteCommand() *cli.Command {
	return &cli.Command{
		Name:  "promote",
		Usage: "end the trial of a canary and let the rollout go on",
		Description: "x-dunnage.canary lets a few replicas of a new release take connections beside the old ones first. " +
			"`dunnage rollback` ends the trial the other way.\n\n" +
			"Example:\n   dunnage promote -p shop",
		Flags:  changeFlags(),
		Action: p.steerAction("promote"),
	}
}

func (p *program) steerAction(kind string) cli.ActionFunc {
	return p.changeAction(func(c *cli.Context) (spec.ChangeRequest, error) {
		return spec.ChangeRequest{Kind: kind}, wantArgs(c, 0, 0)
	})
}
