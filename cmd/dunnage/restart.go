package main

import "github.com/urfave/cli/v2"

func (p *program) restartCommand() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "replace the replicas of services by new ones of the same kind",
		ArgsUsage: "[SERVICE...]",
		Description: "Rolls as a deploy does: new replicas are ready before old ones stop, unless the service is stop-first.\n\n" +
			"Example:\n   dunnage restart web",
		Flags:  changeFlags(waitFlag(), takeOverFlag()),
		Action: p.changeAction(ofServices),
	}
}
