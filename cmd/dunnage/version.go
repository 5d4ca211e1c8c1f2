package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
)

// versionTimeout is how long `version` waits for an agent that may be stuck.
const versionTimeout = 5 * time.Second

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the versions of this program and of the agent",
		Description: "`dunnage --version` and `dunnage -v` are the same.\n\nExample:\n   dunnage version",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      p.withAgent(p.showVersion),
	}
}

// thisVersion describes the running program.
func thisVersion() api.Version {
	v := api.Version{Version: version, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+changes"
			}
		}
	}
	if v.Commit != "" {
		v.Commit += changed
	}
	return v
}

func (p *program) showVersion(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	far, err := agent.Version(ctx)
	if c.Bool("json") {
		both := struct {
			Client api.Version  `json:"client"`
			Agent  *api.Version `json:"agent"` // null: not reached
		}{Client: thisVersion()}
		if err == nil {
			both.Agent = &far
		}
		return p.printJSON(both)
	}
	line := "agent    " + describeVersion(far)
	if err != nil {
		line = "agent    not reached: " + printable(err.Error())
	}
	return p.print("dunnage  " + describeVersion(thisVersion()) + "\n" + line + "\n")
}

func describeVersion(v api.Version) string {
	text := v.Version
	if v.Commit != "" {
		text += fmt.Sprintf(", commit %.12s", v.Commit)
	}
	if v.Go != "" {
		text += ", " + v.Go
	}
	return printable(text)
}
