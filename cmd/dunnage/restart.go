package main

import "github.com/urfave/cli/v2"

func (p *program) restartCommand() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "replace the replicas of services by new ones of the same kind, or restart one replica",
		ArgsUsage: "[SERVICE...|REPLICA...]",
		Description: "Rolls as a deploy does: new replicas are ready before old ones stop, unless the service is stop-first.\n\n" +
			"A replica is named web-1 as `logs` shows it, shop-web-1 as docker would, or in full as `ps` has it. It is restarted alone, also when its shim hangs, and its container with what it wrote stays. " +
			"One more runs in its stead meanwhile, unless the service is stop-first, has a container_name or shares a network; several are restarted one after the other. It makes no release.\n\n" +
			"Example:\n   dunnage restart web\n   dunnage restart web-2",
		Flags:  changeFlags(waitFlag(), takeOverFlag()),
		Action: p.changeAction(ofServices),
	}
}
