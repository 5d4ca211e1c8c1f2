package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "print what happens, as it happens, or what has happened",
		ArgsUsage: "[SERVICE|REPLICA...]",
		Description: "Alone it prints what happens from now on, until it is interrupted. With --since or --until it prints what has happened then and ends, as `logs` does; with -f it goes on. " +
			"Without -p it shows all projects, and what concerns the whole host. The last 8 MB of events are kept, over restarts of the agent; the progress of pulls isn't.\n\n" +
			"Times are 10m or 2d (ago), 2026-11-22T12:00:00Z, \"2026-11-22 12:00\" (here), or all.\n\n" +
			"Example:\n   dunnage events -p shop --since 10m",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "print kept events from `WHEN` on"},
			&cli.StringFlag{Name: "until", Usage: "print events from before `WHEN`, and end then"},
			&cli.StringSliceFlag{Name: "kind", Usage: "only events of this `KIND`: " + strings.Join(eventKinds(), ", ") + "; repeatable"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens from now on; the default without --since, --until and --no-follow"},
			&cli.BoolFlag{Name: "no-follow", Usage: "end after the events that are kept; alone it prints all"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line"},
		},
		Action: p.withAgent(p.events),
	}
}

func eventKinds() (names []string) {
	for _, k := range spec.EventKinds {
		names = append(names, string(k))
	}
	return names
}

func (p *program) events(ctx context.Context, c *cli.Context, agent *api.Client) error {
	r, err := p.eventRequest(c)
	if err != nil {
		return err
	}
	past := c.IsSet("since") || c.IsSet("until") || c.Bool("no-follow")
	if past {
		p.tellStart(ctx, agent, r.Since)
	}
	if r.Follow {
		p.tellUnknown(ctx, agent, r.Project)
	}
	n := 0
	err = agent.Events(ctx, r, func(e spec.Event) error {
		n++
		if c.Bool("json") {
			return p.printJSONLine(e)
		}
		return p.print(eventText(e) + "\n")
	})
	if err == nil && n == 0 && past {
		if err := wantHistory(ctx, agent, r.Project); err != nil {
			return err
		}
		p.note("no event that is kept matches")
	}
	return err
}

// wantHistory tells a project that isn't here and that no kept event names, not
// even one that wasn't asked for, from one that only has none to show.
func wantHistory(ctx context.Context, agent *api.Client, project string) error {
	if project == "" {
		return nil
	}
	_, unknown := agent.Releases(ctx, project)
	if !errors.Is(unknown, spec.ErrNotFound) {
		return nil // or the question failed, and the events are answer enough
	}
	named := false
	err := agent.Events(ctx, spec.EventRequest{Project: project}, func(spec.Event) error {
		named = true
		return nil
	})
	if err != nil || named {
		return err
	}
	return unknown
}

// tellUnknown warns who follows a project that isn't here: it is misspelt, or
// somebody is about to deploy it.
func (p *program) tellUnknown(ctx context.Context, agent *api.Client, project string) {
	if project == "" {
		return
	}
	if _, err := agent.Releases(ctx, project); errors.Is(err, spec.ErrNotFound) {
		p.warn("%s; its events are shown once it is deployed", api.Text(err))
	}
}

func (p *program) eventRequest(c *cli.Context) (r spec.EventRequest, err error) {
	since, until := c.String("since"), c.String("until")
	past := since != "" || until != "" || c.Bool("no-follow")
	if c.Bool("follow") && c.Bool("no-follow") {
		return r, usagef("--follow and --no-follow: use one of them")
	}
	r = spec.EventRequest{Follow: c.Bool("follow") || !past, Project: c.String("project-name"), Names: c.Args().Slice()}
	switch {
	case since != "":
		if r.Since, err = p.parseTime("--since", since); err != nil {
			return r, err
		}
	case !past:
		r.Since = p.now()
	}
	if until != "" {
		if r.Until, err = p.parseTime("--until", until); err != nil {
			return r, err
		}
	}
	if !r.Until.IsZero() && !r.Since.Before(r.Until) {
		return r, usagef("--until %s is not after --since %s", quote(until), quote(since))
	}
	for _, text := range c.StringSlice("kind") {
		kind := spec.EventKind(text)
		if !slices.Contains(spec.EventKinds, kind) {
			return r, usagef("--kind %s: use %s", quote(text), strings.Join(eventKinds(), ", "))
		}
		r.Kinds = append(r.Kinds, kind)
	}
	return r, nil
}

// tellStart says that older events than some are no longer kept.
func (p *program) tellStart(ctx context.Context, agent *api.Client, since time.Time) {
	if st, err := agent.Status(ctx); err == nil && since.Before(st.Events) {
		p.note("events are kept since " + st.Events.UTC().Format(time.RFC3339))
	}
}

// parseSince is the time from which on something is shown.
func (p *program) parseSince(text string) (time.Time, error) { return p.parseTime("--since", text) }

// localTimes are times without a zone, which is then the one here.
var localTimes = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly}

// parseTime reads a flag's time; "all" is the beginning, and nothing is now.
func (p *program) parseTime(flag, text string) (time.Time, error) {
	switch text {
	case "":
		return p.now(), nil
	case "all":
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return p.now().Add(-d), nil
	}
	var days int
	if n, err := fmt.Sscanf(text, "%dd", &days); err == nil && n == 1 && text == fmt.Sprintf("%dd", days) && days >= 0 {
		t := p.now().AddDate(0, 0, -days)
		if t.Year() < 1 { // nothing writes such a time down
			return t, usagef("%s %s: that is before the year 1; use fewer days, such as 2d, or all", flag, quote(text))
		}
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range localTimes {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("%s %s: use a duration (10m, 2d), a time (2026-11-22T12:00:00Z, or \"2026-11-22 12:00\" here) or all", flag, quote(text))
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
		text = strings.Join(strings.Fields(e.Pull.Image+" "+e.Pull.Layer+" "+pullState(*e.Pull)), " ")
	}
	for _, said := range []string{e.Replica + " ", e.Replica + ": ", e.Service + ": ", "is " + string(e.Kind), ": "} {
		text = strings.TrimPrefix(text, said)
	}
	if e.Replica != "" {
		text = strings.Replace(text, " of "+e.Replica, "", 1)
	}
	if text = strings.TrimSpace(text); where == "" {
		where = text
	} else if text != "" && text != string(e.Kind) {
		where += ": " + text
	}
	return printable(fmt.Sprintf("%s %-9s %s", e.At.UTC().Format(time.RFC3339), e.Kind, where))
}
