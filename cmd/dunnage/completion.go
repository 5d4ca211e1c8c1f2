package main

import (
	_ "embed"

	"github.com/urfave/cli/v2"
)

// The scripts ask `dunnage __complete -- WORDS...` for candidates.
var (
	//go:embed completion/dunnage.bash
	bashCompletion string
	//go:embed completion/_dunnage
	zshCompletion string
	//go:embed completion/dunnage.fish
	fishCompletion string
)

func (p *program) completionCommand() *cli.Command {
	shell := func(name, script, example string) *cli.Command {
		return &cli.Command{
			Name:        name,
			Usage:       "print the script for " + name,
			Description: "Example:\n   " + example,
			Action: func(c *cli.Context) error {
				if err := wantArgs(c, 0, 0); err != nil {
					return err
				}
				return p.print(script)
			},
		}
	}
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a shell's completion script",
		Description: "The scripts complete verbs and flags, and ask the agent for services and projects.\n\nExample:\n   . <(dunnage completion bash)",
		Subcommands: []*cli.Command{
			shell("bash", bashCompletion, ". <(dunnage completion bash)"),
			shell("zsh", zshCompletion, "dunnage completion zsh > \"${fpath[1]}/_dunnage\""),
			shell("fish", fishCompletion, "dunnage completion fish | source"),
		},
	}
}
