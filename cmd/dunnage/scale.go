package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/spec"
)

func (p *program) scaleCommand() *cli.Command {
	return &cli.Command{
		Name:      "scale",
		Usage:     "set the number of a service's replicas",
		ArgsUsage: "SERVICE=REPLICAS...",
		Description: "Makes a new release, unless the services have these numbers already. The next deploy sets the manifest's numbers again.\n\n" +
			"Example:\n   dunnage scale web=3 worker=1",
		Flags:  changeFlags(waitFlag(), takeOverFlag()),
		Action: p.changeAction(scaleRequest),
	}
}

func scaleRequest(c *cli.Context) (spec.ChangeRequest, error) {
	r := spec.ChangeRequest{Kind: "scale", Replicas: map[string]int{}}
	if err := wantArgs(c, 1, -1); err != nil {
		return r, err
	}
	for _, arg := range c.Args().Slice() {
		service, number, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || service == "" {
			return r, &usageError{message: "scale " + quote(arg) + ": that isn't SERVICE=REPLICAS", hint: "for example: dunnage scale web=3"}
		}
		if _, twice := r.Replicas[service]; twice {
			return r, usagef("scale: %s is given twice", service)
		}
		r.Replicas[service] = n
	}
	return r, nil
}
