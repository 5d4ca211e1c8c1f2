package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:  "events",
		Usage: "print what happens, as it happens",
		Description: "Goes on until it is interrupted, but with --no-follow only prints what is kept. Without -p it shows all projects. Events are kept since the agent started.\n\n" +
			"Example:\n   dunnage events --since 10m --no-follow",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "begin with kept events from `WHEN` on: 10m ago, a time like 2026-11-22T12:00:00Z, or all; else with the next, or with --no-follow all"},
			&cli.BoolFlag{Name: "no-follow", Usage: "end after the events that are kept"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line"},
		},
		Action: p.withAgent(p.events),
	}
}

func (p *program) events(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	text := c.String("since")
	if c.Bool("no-follow") {
		text = cmp.Or(text, "all")
	}
	since, err := p.parseSince(text)
	if err != nil {
		return err
	}
	name := c.String("project-name")
	if text != "" {
		p.tellStart(ctx, agent, since)
	}
	return agent.Events(ctx, 0, !c.Bool("no-follow"), func(e spec.Event) error {
		if e.At.Before(since) || name != "" && e.Project != name {
			return nil
		}
		if c.Bool("json") {
			return p.printJSONLine(e)
		}
		return p.print(eventText(e) + "\n")
	})
}

// tellStart says that an agent can't show what happened before it started. One
// that has no status yet has events all the same.
func (p *program) tellStart(ctx context.Context, agent *api.Client, since time.Time) {
	if st, err := agent.Status(ctx); err == nil && since.Before(st.Started) {
		p.note("events are kept since the agent started, at " + st.Started.UTC().Format(time.RFC3339))
	}
}

// parseSince is the time from which on events are shown.
func (p *program) parseSince(text string) (time.Time, error) {
	switch text {
	case "":
		return p.now(), nil
	case "all":
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return p.now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("--since %s: use a duration (10m), a time (2026-11-22T12:00:00Z) or all", quote(text))
	}
	return t, nil
}

// eventText is an event as one line: when, what, where, and what more there is
// to say. A replica's name says its project and service.
func eventText(e spec.Event) string {
	where := e.Replica
	if where == "" {
		where = strings.TrimSpace(e.Project + " " + e.Service)
	}
	text := e.Message
	if e.Pull != nil {
		text = strings.Join(strings.Fields(e.Pull.Image+" "+e.Pull.Layer+" "+e.Pull.State), " ")
	}
	for _, said := range []string{e.Replica + " ", e.Service + ": ", "is " + string(e.Kind), ": "} {
		text = strings.TrimPrefix(text, said)
	}
	if text = strings.TrimSpace(text); where == "" {
		where = text
	} else if text != "" && text != string(e.Kind) {
		where += ": " + text
	}
	return printable(fmt.Sprintf("%s %-9s %s", e.At.UTC().Format(time.RFC3339), e.Kind, where))
}
