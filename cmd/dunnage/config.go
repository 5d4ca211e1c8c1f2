package main

import (
	"github.com/urfave/cli/v2"

	"dunnage/manifest"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check the manifest and print what it comes to",
		Description: "Prints the manifest with files merged, variables filled in and defaults written out. It needs no agent.\n\n" +
			"Example:\n   dunnage config -f compose.yaml --quiet && echo fine",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only check"},
			&cli.BoolFlag{Name: "services", Usage: "print the names of the services"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON: the project as the agent gets it"},
		},
		Action: p.config,
	}
}

func (p *program) config(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	m, err := p.load(c)
	if err != nil {
		return err
	}
	for _, n := range m.Notes {
		p.warn("%s", n)
	}
	switch {
	case c.Bool("quiet"):
		return nil
	case c.Bool("json"):
		return p.printJSON(m.Project)
	case c.Bool("services"):
		for _, s := range m.Project.Services {
			if err := p.print(s.Name + "\n"); err != nil {
				return err
			}
		}
		return nil
	}
	text, err := manifest.Encode(m.Project)
	if err != nil {
		return err
	}
	return p.print(string(text))
}
