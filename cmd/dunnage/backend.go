package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"

	"dunnage/engine"
	"dunnage/orchestrator"
	"dunnage/spec"
)

// backend is the agent behind the API: the loop, and the engine for what
// changes no desired state.
type backend struct {
	*orchestrator.Loop
	examiner
	engine *engine.Engine
}

func (b backend) Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error {
	return b.engine.Logs(ctx, r, send)
}

func (b backend) Exec(ctx context.Context, r spec.ExecRequest, stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint16) (int, error) {
	return b.engine.Exec(ctx, r, spec.Terminal{Stdin: stdin, Stdout: stdout, Stderr: stderr, Resize: resize})
}

func (b backend) Collect(ctx context.Context, rehearse, all bool) (spec.Collection, error) {
	if err := b.engine.Answers(ctx); err != nil { // as in Images
		return spec.Collection{}, err
	}
	return b.Loop.Collect(ctx, rehearse, all)
}

func (b backend) Images(ctx context.Context) ([]spec.Image, error) {
	if err := b.engine.Answers(ctx); err != nil { // else whoever asks waits as long as for a change
		return nil, err
	}
	images, err := b.engine.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	users := b.ImageUsers()
	for i := range images {
		images[i].UsedBy = users[images[i].Digest]
	}
	return images, nil
}

func (b backend) Pull(ctx context.Context, ref string, progress func(spec.PullProgress)) (spec.Image, error) {
	p, err := b.engine.Pull(ctx, ref, progress)
	return spec.Image{Ref: p.Ref, Digest: p.Digest, Size: p.Size}, err
}

func (b backend) Load(ctx context.Context, archive io.Reader) ([]spec.Image, error) {
	return b.engine.Load(ctx, archive)
}

// RemoveImage names the releases that need an image as `image ls` does: the
// engine knows only that they do.
func (b backend) RemoveImage(ctx context.Context, ref string) error {
	err := b.engine.RemoveImage(ctx, ref)
	if !errors.Is(err, spec.ErrRefused) {
		return err
	}
	image, unnamed := b.engine.Named(ctx, ref) // it may be damaged
	if users := b.ImageUsers()[image.Digest]; unnamed == nil && len(users) > 0 {
		return &neededImage{ref: image.Ref, users: users}
	}
	return err
}

// neededImage is an image that isn't removed because releases hold it.
type neededImage struct {
	ref   string
	users []string // "project release N"
}

func (e *neededImage) Error() string {
	return fmt.Sprintf("remove image %s: needed by %s", e.ref, strings.Join(e.users, ", "))
}

func (e *neededImage) Unwrap() error { return spec.ErrRefused }

// Hint says how the image becomes free.
func (e *neededImage) Hint() string {
	project, _, _ := strings.Cut(e.users[0], " ")
	return "releases keep their images, so that a rollback needs no registry; `dunnage history -p " + project + "` lists those that stay, `dunnage down --forget -p " + project + "` ends the project and drops them all"
}

// Groups of the host whose members may do what root may.
const (
	socketGroup  = "dunnage"         // use the socket
	secretsGroup = "dunnage-secrets" // change, compare and unlock secrets, where there is one
)

// groupID is the group of that name, -1 where the host has none.
func groupID(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return id
}
