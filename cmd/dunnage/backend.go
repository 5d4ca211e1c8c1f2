package main

import (
	"context"
	"io"
	"os/user"
	"strconv"

	"dunnage/engine"
	"dunnage/orchestrator"
	"dunnage/orchestrator/health"
	"dunnage/spec"
)

// backend is the agent behind the API: the loop, and the engine for what
// changes no desired state.
type backend struct {
	*orchestrator.Loop
	engine *engine.Engine
}

func (b backend) Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error {
	return b.engine.Logs(ctx, r, send)
}

func (b backend) Exec(ctx context.Context, r spec.ExecRequest, stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint16) (int, error) {
	return b.engine.Exec(ctx, r, spec.Terminal{Stdin: stdin, Stdout: stdout, Stderr: stderr, Resize: resize})
}

func (b backend) Images(ctx context.Context) ([]spec.Image, error) {
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

func (b backend) RemoveImage(ctx context.Context, ref string) error {
	return b.engine.RemoveImage(ctx, ref)
}

// execProbe runs a health check's command without a terminal.
func execProbe(e *engine.Engine) health.ExecFunc {
	return func(ctx context.Context, r spec.ExecRequest, output io.Writer) (int, error) {
		return e.Exec(ctx, r, spec.Terminal{Stdout: output, Stderr: output})
	}
}

// groupID is the group whose members may use the socket, -1 where the host has
// none called dunnage.
func groupID() int {
	g, err := user.LookupGroup("dunnage")
	if err != nil {
		return -1
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return id
}
