package main

import (
	"context"
	"fmt"
	"maps"
	"path"
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
		Description: "Lists the kept releases, newest first; * marks the desired one. " +
			"STATE is current, rolling (not converged yet), paused (stands still until somebody says so), ran (later replaced), failed (also one that was replaced while it was paused for its failure), left (somebody rolled back from it), or - (replaced before it converged). " +
			"Why a release failed or is paused stands below it on a terminal, and on standard error where the output goes elsewhere. " +
			"A narrow terminal shows images without registry and digest, and cuts them before it leaves out REASON and AGE. JSON has everything. `dunnage receipt` says what a rollout did, and what clients noticed of it.\n\n" +
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
	t := p.historyTable(releases, desired, pinned)
	if p.terminal.width > 0 && t.fullWidth() > p.terminal.width {
		t = p.historyTable(releases, desired, shortImage)
	}
	if err := p.write(t); err != nil || p.terminal.stdout {
		return err
	}
	for _, r := range releases {
		if r.Cause != "" {
			fmt.Fprintf(p.stderr, "release %d: %s\n", r.Number, printable(r.Cause))
		}
	}
	return nil
}

func (p *program) historyTable(releases []spec.Release, desired int, image func(spec.PinnedImage) string) table {
	t := table{columns: []column{{name: "RELEASE"}, {name: "STATE"}, {name: "AGE", drop: 1}, {name: "REASON", drop: 2}, {name: "IMAGES", cut: len("web=example")}}}
	for _, r := range releases {
		mark := ""
		if r.Number == desired {
			mark = "*"
		}
		below := ""
		if p.terminal.stdout {
			below = printable(r.Cause)
		}
		t.rows = append(t.rows, row{
			cells:   []string{fmt.Sprintf("%d%s", r.Number, mark), string(r.State), age(p.now(), r.Created), printable(r.Reason), images(r, image)},
			colours: map[int]int{1: releaseColours[r.State]},
			below:   below,
		})
	}
	return t
}

var releaseColours = map[spec.ReleaseState]int{
	spec.ReleaseCurrent: green, spec.ReleaseRolling: yellow, spec.ReleasePaused: yellow, spec.ReleaseFailed: red, spec.ReleaseLeft: grey,
}

// images lists a release's images by service.
func images(r spec.Release, image func(spec.PinnedImage) string) string {
	var words []string
	for _, s := range slices.Sorted(maps.Keys(r.Images)) {
		words = append(words, printable(s+"="+image(r.Images[s])))
	}
	return strings.Join(words, " ")
}

// pinned is an image with the beginning of its digest.
func pinned(i spec.PinnedImage) string { return i.Ref + "@" + shortDigest(i.Digest) }

// shortImage is an image without its registry and path.
func shortImage(i spec.PinnedImage) string { return path.Base(i.Ref) }

// shortDigest is the first 12 digits, as docker shows them.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}
