package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) dfCommand() *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "show what takes room on disk, by project and release",
		Description: "Shows what dunnage keeps on disk, counted by what the file system has allocated: images (compressed as registries send them, and unpacked), what replicas have written over them, logs, its own state, volumes. " +
			"What several releases share is counted once, as theirs together; volumes are shown, and neither counted for the budget nor ever collected. " +
			"The budget is the host's owner's: disk.budget in the agent's file.\n\n" +
			"A large directory isn't counted anew at each question: its figure may be as old as twenty times what counting it takes. + is behind what is counted for the first time just now and takes more. " +
			"While containerd doesn't answer, ? stands for what images and replicas take, and totals are without that.\n\n" +
			"With -p it lists only what that project alone needs; what is in use of the budget stays the host's.\n\n" +
			"Example:\n   dunnage df -v",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list each thing, with who needs it"},
			jsonFlag(),
		},
		Action: p.withAgent(p.df),
	}
}

func (p *program) df(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	r, err := agent.DiskReport(ctx)
	if err != nil {
		return err
	}
	if project := c.String("project-name"); project != "" {
		r.Items = slices.DeleteFunc(r.Items, func(i spec.DiskItem) bool { return i.Project != project })
		if len(r.Items) == 0 { // what is down has volumes and logs still
			if _, err := agent.Releases(ctx, project); err != nil {
				return err
			}
		}
	}
	if c.Bool("json") {
		return p.printJSON(r)
	}
	t := dfTable(r)
	if c.Bool("verbose") {
		t = itemTable(r.Items, column{name: "NEEDED BY", drop: 1, cut: leastText, wrap: true}, func(i spec.DiskItem) string {
			if len(i.Holders) == 0 && !i.Kind.Counted() {
				return "" // volumes are the users'
			}
			return cmp.Or(strings.Join(i.Holders, ", "), "nobody")
		})
	}
	if err := p.write(t); err != nil {
		return err
	}
	return p.print("\n" + strings.Join(dfSummary(r), "\n") + "\n")
}

// dfGroup is a line of df.
type dfGroup struct {
	project, need string
	order         int // of the lines without a project, and of those of one
	use           map[string]spec.DiskUse
	total         spec.DiskUse
	partly        bool
}

// dfColumns are what the kinds are called in df: an image is both.
var dfColumns = map[spec.DiskKind]string{
	spec.DiskContent: "IMAGES", spec.DiskLayers: "IMAGES", spec.DiskWritable: "WRITTEN", spec.DiskLogs: "LOGS", spec.DiskState: "STATE", spec.DiskVolumes: "VOLUMES",
}

// dfGroupOf says on whose line an item stands.
func dfGroupOf(i spec.DiskItem) dfGroup {
	released := func(holder string) bool { return strings.Contains(holder, " release ") }
	switch {
	case i.Kind == spec.DiskVolumes:
		return dfGroup{project: i.Project, need: "volumes", order: 1 << 30}
	case len(i.Holders) == 0:
		return dfGroup{need: "nobody: gc removes it", order: 4}
	case i.Kind == spec.DiskState:
		return dfGroup{need: "dunnage itself", order: 1}
	case len(i.Releases) == 1:
		return dfGroup{project: i.Project, need: "release " + strconv.Itoa(i.Releases[0]), order: i.Releases[0]}
	case len(i.Releases) > 1:
		return dfGroup{project: i.Project, need: "several releases", order: 1<<30 - 2}
	case i.Project != "" && i.Kind == spec.DiskLogs:
		return dfGroup{project: i.Project, need: "removed replicas", order: 1<<30 - 1}
	case slices.ContainsFunc(i.Holders, released):
		return dfGroup{need: "several projects", order: 2}
	}
	return dfGroup{project: i.Project, need: "not deployed yet", order: 3}
}

func dfTable(r spec.DiskReport) table {
	missing := map[string]bool{} // columns
	for _, kind := range r.Missing {
		missing[dfColumns[kind]] = true
	}
	var groups []*dfGroup
	all := &dfGroup{project: "total", need: "", use: map[string]spec.DiskUse{}}
	for _, i := range r.Items {
		g := dfGroupOf(i)
		at := slices.IndexFunc(groups, func(x *dfGroup) bool { return x.project == g.project && x.need == g.need })
		if at < 0 {
			at, g.use = len(groups), map[string]spec.DiskUse{}
			groups = append(groups, &g)
		}
		for _, x := range []*dfGroup{groups[at], all} {
			kind := dfColumns[i.Kind]
			sum := x.use[kind]
			sum.Add(i.DiskUse)
			x.use[kind] = sum
			x.total.Add(i.DiskUse)
			x.partly = x.partly || i.Partly
		}
	}
	slices.SortFunc(groups, func(a, b *dfGroup) int {
		if (a.project == "") != (b.project == "") { // projects first
			return cmp.Compare(b.project, a.project)
		}
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.order, b.order))
	})
	t := table{columns: []column{{name: "PROJECT"}, {name: "FOR"}, {name: "IMAGES"}, {name: "WRITTEN", drop: 1}, {name: "LOGS", drop: 2}, {name: "STATE", drop: 4}, {name: "VOLUMES", drop: 3}, {name: "TOTAL"}, {name: "INODES", drop: 5}}}
	for _, g := range append(groups, all) {
		cells := []string{printable(g.project), printable(g.need)}
		for _, c := range t.columns[2:7] {
			if missing[c.name] {
				cells = append(cells, "?")
				continue
			}
			cells = append(cells, sizeOrNone(g.use[c.name].Bytes))
		}
		total, inodes := size(g.total.Bytes), strconv.FormatInt(g.total.Inodes, 10)
		if g.partly || len(missing) > 0 {
			total, inodes = total+"+", inodes+"+"
		}
		t.rows = append(t.rows, row{cells: append(cells, total, inodes)})
	}
	return t
}

// sizeOrNone leaves a cell empty where there is nothing.
func sizeOrNone(n int64) string {
	if n == 0 {
		return ""
	}
	return size(n)
}

// itemTable lists items one by one.
func itemTable(items []spec.DiskItem, last column, text func(spec.DiskItem) string) table {
	t := table{columns: []column{{name: "KIND"}, {name: "PROJECT", drop: 2}, {name: "NAME"}, {name: "SIZE"}, {name: "INODES", drop: 3}, last}}
	for _, i := range items {
		bytes, inodes := size(i.Bytes), strconv.FormatInt(i.Inodes, 10)
		if i.Partly {
			bytes, inodes = bytes+"+", inodes+"+"
		}
		t.rows = append(t.rows, row{cells: []string{string(i.Kind), printable(i.Project), printable(i.Name), bytes, inodes, printable(text(i))}})
	}
	return t
}

// dfSummary compares what is in use with what there may be.
func dfSummary(r spec.DiskReport) []string {
	line := "in use without volumes: " + size(r.Counted.Bytes)
	if len(r.Missing) > 0 {
		var names []string
		for _, kind := range r.Missing {
			names = append(names, string(kind))
		}
		line = "in use without volumes, and without " + strings.Join(names, ", ") + ", which aren't known now: " + size(r.Counted.Bytes)
	} else if r.Budget > 0 {
		line += fmt.Sprintf(" of a budget of %s (%s)", size(r.Budget), share(r.Counted.Bytes, r.Budget))
	}
	if r.Collectable.Inodes > 0 {
		line += "; `dunnage gc` would free " + diskUse(r.Collectable)
	}
	out := []string{line}
	for _, f := range r.Filesystems {
		line := fmt.Sprintf("file system of %s: %s of %s available (%s)", printable(f.Dir), size(f.Available), size(f.Size), share(f.Available, f.Size))
		if f.Inodes > 0 {
			line += fmt.Sprintf(", %d of %d inodes free (%s)", f.FreeInodes, f.Inodes, share(f.FreeInodes, f.Inodes))
		}
		out = append(out, line)
	}
	if r.Problem != "" {
		out = append(out, "not all of it could be counted: "+printable(r.Problem))
	}
	return out
}

func share(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return strconv.FormatInt(part*100/whole, 10) + "%"
}
