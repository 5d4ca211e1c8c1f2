package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"dunnage/api"
)

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:      "dunnage",
		HelpName:  "dunnage",
		Usage:     "run a Compose file's containers on this host, and redeploy them without losing a request",
		UsageText: "dunnage [flags] VERB [flags] [arguments]",
		Writer:    p.stdout,
		ErrWriter: p.stderr,
		Reader:    p.stdin,
		Flags:     globalFlags(),
		Commands: []*cli.Command{
			p.deployCommand(), p.planCommand(), p.psCommand(), p.statsCommand(), p.logsCommand(), p.execCommand(),
			p.scaleCommand(), p.stopCommand(), p.startCommand(), p.restartCommand(), p.downCommand(),
			p.historyCommand(), p.receiptCommand(), p.rollbackCommand(), p.rolloutCommand(), p.promoteCommand(), p.configCommand(), p.eventsCommand(),
			p.secretCommand(), p.unlockCommand(), p.doctorCommand(), p.explainCommand(), p.imageCommand(), p.dfCommand(), p.gcCommand(), p.netCommand(), p.agentCommand(),
			p.versionCommand(), p.completionCommand(), p.completeCommand(), p.dialStdioCommand(),
		},
		HideVersion:               true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,                         // a comma in a path or a variable is a comma
		ExitErrHandler:            func(*cli.Context, error) {}, // program.finish decides
		OnUsageError:              wrongUsage,
		Action:                    func(c *cli.Context) error { return cli.ShowAppHelp(c) },
	}
	prepare(app.Commands)
	cli.HelpPrinter = p.printHelp(app)
	return app
}

// prepare gives every command what all of them need.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = wrongUsage
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = needsSubcommand
		}
		plainFlags(c.Flags)
		prepare(c.Subcommands)
	}
}

// plainFlags keeps "(default: false)" out of the help.
func plainFlags(flags []cli.Flag) {
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true
		}
	}
}

func wrongUsage(c *cli.Context, err error, _ bool) error {
	return &usageError{message: err.Error(), hint: "see `" + c.Command.HelpName + " --help`"}
}

func needsSubcommand(c *cli.Context) error {
	return &usageError{message: "`" + c.Command.HelpName + "` needs to know what to do", hint: "see `" + c.Command.HelpName + " --help`"}
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "file", Aliases: []string{"f"}, Usage: "manifest `FILE` (repeats: later ones are merged over earlier ones); else dunnage.yaml, compose.yaml, compose.yml or docker-compose.yml"},
		&cli.StringFlag{Name: "project-name", Aliases: []string{"p"}, Usage: "project `NAME`; else the manifest's"},
		&cli.StringSliceFlag{Name: "env-file", Usage: "`FILE` with variables for the manifest (repeats); else .env"},
		&cli.StringSliceFlag{Name: "profile", Usage: "activate a `PROFILE` of the manifest (repeats); else COMPOSE_PROFILES"},
		&cli.StringFlag{Name: "project-directory", Usage: "`DIR` of the manifest's relative paths and .env; without -f the manifest is looked for in it"},
		&cli.StringFlag{Name: "host", Aliases: []string{"H"}, Usage: "`ADDRESS` of the agent: unix:///path or ssh://user@host", Value: api.DefaultHost, EnvVars: []string{"DUNNAGE_HOST"}},
	}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON"}
}

// withAgent wraps an action that needs an agent.
func (p *program) withAgent(action func(ctx context.Context, c *cli.Context, agent *api.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		agent, err := p.connect(c.String("host"))
		if err != nil {
			return err
		}
		defer agent.Close()
		agent.OnSilence(func(s *api.SilentError) {
			p.warn("%s; still waiting", s)
			fmt.Fprintf(p.stderr, "  %s\n", printable(s.Hint()))
		})
		return action(c.Context, c, agent)
	}
}

// wantArgs checks the number of positional arguments; most -1 is any.
func wantArgs(c *cli.Context, least, most int) error {
	n := c.Args().Len()
	if n >= least && (most < 0 || n <= most) {
		return nil
	}
	message := "an argument is missing"
	if n > least {
		message = "argument " + quote(c.Args().Get(most)) + " is one too many"
	}
	return &usageError{message: message, hint: "usage: " + c.Command.HelpName + " " + c.Command.ArgsUsage}
}
