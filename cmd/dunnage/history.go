package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) historyCommand() *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "list a project's releases",
		Description: "Lists the kept releases, newest first; * marks the desired one. JSON has them whole.\n\n" +
			"Example:\n   dunnage history -p shop",
		Flags:  []cli.Flag{jsonFlag()},
		Action: p.withAgent(p.history),
	}
}

func (p *program) history(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	name, err := p.project(c)
	if err != nil {
		return err
	}
	releases, err := agent.Releases(ctx, name)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(releases)
	}
	st, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	desired := 0
	for _, pr := range st.Projects {
		if pr.Name == name {
			desired = pr.Release
		}
	}
	t := table{columns: []column{{name: "RELEASE"}, {name: "AGE"}, {name: "REASON"}, {name: "IMAGES", drop: 1}}}
	for _, r := range releases {
		mark := ""
		if r.Number == desired {
			mark = "*"
		}
		t.rows = append(t.rows, row{cells: []string{fmt.Sprintf("%d%s", r.Number, mark), age(p.now(), r.Created), printable(r.Reason), pinned(r)}})
	}
	return p.write(t)
}

// pinned lists a release's images with the beginning of their digests.
func pinned(r spec.Release) string {
	var words []string
	for _, s := range slices.Sorted(maps.Keys(r.Images)) {
		i := r.Images[s]
		words = append(words, printable(s+"="+i.Ref+"@"+shortDigest(i.Digest)))
	}
	return strings.Join(words, " ")
}

// shortDigest is the first 12 digits, as docker shows them.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}
