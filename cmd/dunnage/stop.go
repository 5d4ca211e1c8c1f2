package main

import "github.com/urfave/cli/v2"

func (p *program) stopCommand() *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "stop services, keeping them deployed",
		ArgsUsage: "[SERVICE...]",
		Description: "Takes the services (all without arguments) out of the rules and stops their replicas, each service before those that it depends on. They stay stopped over a restart of the agent or the host. " +
			"Like rollback and down, it takes over from a change that is at work on the project: that one ends as failed, and so do those that wait for it. " +
			"A release that it has brought in already keeps coming in without it; replicas that it has yet to restart alone aren't restarted.\n\n" +
			"Example:\n   dunnage stop worker",
		Flags:  changeFlags(),
		Action: p.changeAction(ofServices),
	}
}
