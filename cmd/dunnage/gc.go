package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove from disk what nobody needs",
		Description: "Removes images that no kept release, no replica and no operation at work needs, downloads of interrupted pulls, layers without a replica, and the logs of removed replicas but those of the last five generations of each service. " +
			"The agent does so by itself, some seconds after something has become free, and every ten minutes. Volumes, and what others keep in containerd, stay.\n\n" +
			"An image that was loaded or pulled and that no release has had since stays for a day, since a deploy may be about to need it; it is named, with when it goes. While the disk is over its budget or nearly full that is after ten minutes, and of a service's removed replicas the last generation alone keeps its logs. What the kept releases of a project need is never removed: `dunnage history` lists them, and disk.keep_releases in the agent's file says how many are kept.\n\n" +
			"What it freed is the sum of what it lists, as --dry-run has it before. The file systems may say another figure, which is told beside it: files go too that containerd couldn't remove before, as on a full disk, and that no list has; others write and delete at the same time, directories and databases take room of their own, and a file that somebody has open stays until it is closed.\n\n" +
			"Example:\n   dunnage gc --dry-run",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would go, why, and how much that frees"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also images that were brought in the last day and never deployed, and the logs of all removed replicas"},
			jsonFlag(),
		},
		Action: p.withAgent(p.gc),
	}
}

func (p *program) gc(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	if project := c.String("project-name"); project != "" {
		if _, err := agent.Releases(ctx, project); err != nil {
			return err
		}
		p.note("gc is the whole host's: it removes what nobody needs of other projects too")
	}
	rehearse := c.Bool("dry-run")
	got, err := agent.Collect(ctx, rehearse, c.Bool("all"))
	if err != nil && !rehearse {
		err = lostChange(ctx, "it was removed", "`dunnage df`", err)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = p.printJSON(got)
	} else {
		err = p.printCollection(got, rehearse, c.Bool("all"))
	}
	if err == nil && got.Problem != "" {
		return &exitCode{code: exitError, err: fmt.Errorf("not all could be removed: %s", got.Problem)}
	}
	return err
}

func (p *program) printCollection(c spec.Collection, rehearse, all bool) error {
	if len(c.Items) == 0 {
		line := "nothing to remove: `dunnage df -v` says who needs what"
		if c.Freed != (spec.DiskUse{}) {
			line += "; " + moreFree(c.Freed)
		}
		return p.print(line + "\n" + waits(c, all))
	}
	oldLogs := spec.UsualCollection(c.Short != "").Logs
	if all {
		oldLogs = 0
	}
	if err := p.write(itemTable(c.Items, column{name: "WHY", drop: 1, cut: leastText, wrap: true}, func(i spec.DiskItem) string { return collectedWhy(i, oldLogs) })); err != nil {
		return err
	}
	var sum spec.DiskUse
	for _, i := range c.Items {
		sum.Add(i.DiskUse)
	}
	if rehearse {
		return p.print("\nwould free " + diskUse(sum) + "\n" + waits(c, all))
	}
	line := "freed " + diskUse(sum)
	switch c.Freed {
	case sum:
	case spec.DiskUse{}:
		line += "; the file systems have no more free than before"
	default:
		line += "; " + moreFree(c.Freed)
	}
	return p.print("\n" + line + "\n" + waits(c, all))
}

// waits is the line on images that go later; empty = there are none.
func waits(c spec.Collection, all bool) string {
	if len(c.Waiting) == 0 {
		return ""
	}
	line := "kept for a deploy: " + printable(spec.WaitingText(c.Waiting))
	if c.Short != "" {
		line += fmt.Sprintf(", and no longer than %d minutes, because %s", int(spec.ImageGraceShort.Minutes()), printable(strings.TrimPrefix(c.Short, "disk: ")))
	}
	if !all {
		line += "; `dunnage gc --all` doesn't wait"
	}
	return line + "\n"
}

func moreFree(u spec.DiskUse) string {
	return "the file systems have " + diskUse(u) + " more free than before"
}

func diskUse(u spec.DiskUse) string {
	return size(u.Bytes) + " and " + counted(int(u.Inodes), "inode")
}

// collectedWhy says why nobody needs it. Of so many generations of removed replicas
// logs are kept.
func collectedWhy(i spec.DiskItem, oldLogs int) string {
	switch {
	case i.Kind == spec.DiskLogs && oldLogs == 0:
		return "its replica is removed"
	case i.Kind == spec.DiskLogs && oldLogs == 1:
		return "its replica is removed, and it is older than those of the last generation"
	case i.Kind == spec.DiskLogs:
		return fmt.Sprintf("its replica is removed, and it is older than those of the last %d generations", oldLogs)
	case i.Kind == spec.DiskWritable:
		return "there is no such replica"
	case strings.HasPrefix(i.Name, "download of "):
		return "its pull was interrupted"
	case strings.HasPrefix(i.Name, "of no image"):
		return "no image has it any more"
	}
	return "no kept release, replica or operation needs it"
}
