package main

import (
	"github.com/urfave/cli/v2"

	"dunnage/manifest"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check the manifest and print what it comes to",
		Description: "Prints the manifest with files merged, variables filled in and defaults written out. It needs no agent. " +
			"On standard error stand warnings, and notes that name the defaults that differ from Compose's; `--quiet` leaves the warnings only.\n\n" +
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
	m, err := p.load(c, false)
	if err != nil {
		return err
	}
	if c.Bool("services") { // for scripts: only the names
		for _, s := range m.Project.Services {
			if err := p.print(s.Name + "\n"); err != nil {
				return err
			}
		}
		return nil
	}
	p.warnOf(m)
	if c.Bool("quiet") {
		return nil
	}
	for _, n := range m.Notes {
		p.note(n)
	}
	if c.Bool("json") {
		return p.printJSON(m.Project)
	}
	text, err := manifest.Encode(m.Project)
	if err != nil {
		return err
	}
	return p.print(string(text))
}
