package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/engine"
	"dunnage/spec"
)

func (p *program) imageCommand() *cli.Command {
	return &cli.Command{
		Name:        "image",
		Usage:       "load, pull, list and remove images",
		Description: "Example:\n   dunnage image load app.tar",
		Subcommands: []*cli.Command{p.imageLoadCommand(), p.imageLsCommand(), p.imagePullCommand(), p.imageRmCommand()},
	}
}

func (p *program) imageLoadCommand() *cli.Command {
	return &cli.Command{
		Name:      "load",
		Usage:     "store the images of an archive",
		ArgsUsage: "[FILE]",
		Description: "Reads an archive as `docker save` or skopeo write it, plain or compressed with gzip, from FILE or from standard input.\n\n" +
			"A file that doesn't fit on the disk or into its budget is refused before anything is written: its layers that aren't stored yet count, as they are in the archive and unpacked. " +
			"What comes out of a pipe is loaded until the disk is full, and then dropped.\n\n" +
			"Example:\n   docker save app:1 | dunnage image load",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "read `FILE`, as docker load has it"},
			jsonFlag(),
		},
		Action: p.withAgent(p.imageLoad),
	}
}

func (p *program) imageLoad(ctx context.Context, c *cli.Context, agent *api.Client) (err error) {
	if err := wantArgs(c, 0, 1); err != nil {
		return err
	}
	file := c.String("input")
	if c.Args().Present() {
		if file != "" {
			return usagef("the archive is named twice: %s and %s", file, c.Args().First())
		}
		file = c.Args().First()
	}
	archive, err := p.openArchive(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	if err := p.roomForLoad(ctx, agent, archive); err != nil {
		return err
	}
	images, err := agent.Load(ctx, archive)
	if err != nil {
		return lostChange(ctx, "the images were loaded", "`dunnage image ls`", err)
	}
	if c.Bool("json") {
		return p.printJSON(images)
	}
	for _, i := range images {
		if err := p.print("loaded " + printable(i.Ref) + " " + i.Digest + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// roomForLoad has the agent refuse an archive that doesn't fit, before it is sent.
// Only a file can be read beforehand.
func (p *program) roomForLoad(ctx context.Context, agent *api.Client, archive io.Reader) error {
	f, ok := archive.(*os.File)
	if !ok {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil // what is wrong with it, its load finds
	}
	layers, err := engine.ArchiveLayers(ctx, f)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, spec.ErrRefused) || len(layers) == 0:
		return nil // no archive: the agent says what it expected
	case err != nil:
		return err
	}
	note, err := agent.LoadRoom(ctx, layers)
	if e := new(api.Error); errors.As(err, &e) && e.Kind == api.KindNoSuchPath {
		return nil // an older agent loads all the same
	}
	if err == nil && note != "" {
		p.note(note)
	}
	return err
}

func (p *program) openArchive(file string) (io.ReadCloser, error) {
	if file != "" && file != "-" {
		told := p.tellOfPipes(file)
		f, err := os.Open(p.absolute(file))
		told()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &exitCode{code: exitError, err: fmt.Errorf("no archive %s here", file),
				hint: nearFile(p.absolute(file), "`docker save -o "+file+" IMAGE` makes one; `dunnage image pull IMAGE` asks a registry")}
		}
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		if st, err := f.Stat(); err == nil && st.IsDir() {
			_ = f.Close() // nothing was read
			return nil, &exitCode{code: exitError, err: fmt.Errorf("%s is a directory, and no archive", file),
				hint: "of an OCI layout, `tar -C " + file + " -c . | dunnage image load` makes one"}
		}
		return f, nil
	}
	if p.terminal.stdin {
		return nil, &usageError{message: "no archive: standard input is a terminal", hint: "name a file, or pipe one in"}
	}
	if f, ok := p.stdin.(*os.File); ok {
		return f, nil
	}
	return io.NopCloser(p.stdin), nil
}

func (p *program) imagePullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "fetch images from their registries",
		ArgsUsage: "IMAGE...",
		Description: "Uses the agent's credentials and hosts files, not this user's.\n\n" +
			"Example:\n   dunnage image pull nginx:1.27",
		Flags:  []cli.Flag{jsonFlag()},
		Action: p.withAgent(p.imagePull),
	}
}

func (p *program) imagePull(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	images := []spec.Image{}
	for _, ref := range c.Args().Slice() {
		img, err := p.pullOne(ctx, agent, ref)
		if err != nil {
			return err
		}
		images = append(images, img)
		if !c.Bool("json") {
			if err := p.print("pulled " + printable(img.Ref) + " " + img.Digest + "\n"); err != nil {
				return err
			}
		}
	}
	if c.Bool("json") {
		return p.printJSON(images)
	}
	return nil
}

func (p *program) pullOne(ctx context.Context, agent *api.Client, ref string) (spec.Image, error) {
	show := p.newPulls()
	defer show.close()
	return agent.Pull(ctx, ref, show.show)
}

func (p *program) imageLsCommand() *cli.Command {
	return &cli.Command{
		Name:        "ls",
		Usage:       "list the stored images",
		Description: "SIZE is compressed, as a registry has it.\n\nExample:\n   dunnage image ls",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      p.withAgent(p.imageLs),
	}
}

func (p *program) imageLs(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	images, err := agent.Images(ctx)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(images)
	}
	t := table{columns: []column{{name: "IMAGE"}, {name: "DIGEST", drop: 2}, {name: "SIZE"}, {name: "CREATED", drop: 3}, {name: "USED BY", drop: 1, cut: leastText, wrap: true}}}
	for _, i := range images {
		t.rows = append(t.rows, row{cells: []string{printable(i.Ref), shortDigest(i.Digest), size(i.Size), age(p.now(), i.Created), strings.Join(i.UsedBy, ", ")}})
	}
	return p.write(t)
}

func (p *program) imageRmCommand() *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "remove images",
		ArgsUsage:   "IMAGE...",
		Description: "An image that a kept release needs is not removed.\n\nExample:\n   dunnage image rm app:1",
		Action:      p.withAgent(p.imageRm),
	}
}

// imageRm goes on after a failure, so that one image in use keeps no other.
func (p *program) imageRm(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	var errs []error
	for _, ref := range c.Args().Slice() {
		err := agent.RemoveImage(ctx, ref)
		if isLost(err) { // nor will it answer the others
			errs = append(errs, lostChange(ctx, ref+" was removed", "`dunnage image ls`", err))
			break
		}
		if err == nil {
			err = p.print("removed " + printable(ref) + "\n")
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
