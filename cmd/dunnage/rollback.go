package main

import (
	"strconv"

	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func (p *program) rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "go back to an earlier release",
		ArgsUsage: "[RELEASE]",
		Description: "Makes an earlier release (without an argument, the one before) the desired one again, with the images and the versions of secrets that it had; a warning names those that aren't the current ones any more. Where the release doesn't run any more (x-dunnage.keep_warm keeps it), another says first what is created. `dunnage history` lists them.\n\n" +
			"Example:\n   dunnage rollback 4",
		Flags:  changeFlags(),
		Action: p.changeAction(rollbackRequest),
	}
}

func rollbackRequest(c *cli.Context) (spec.ChangeRequest, error) {
	r := spec.ChangeRequest{Kind: "rollback"}
	if err := wantArgs(c, 0, 1); err != nil || !c.Args().Present() {
		return r, err
	}
	n, err := strconv.Atoi(c.Args().First())
	if err != nil || n < 1 {
		return r, &usageError{message: "rollback " + quote(c.Args().First()) + ": a release is a number from 1", hint: "`dunnage history` lists them"}
	}
	r.Release = n
	return r, nil
}
