package main

import (
	"context"
	"errors"
	"strings"

	"dunnage/test/lab"
)

var errNoRedeploy = errors.New("has no redeploy")

// docker is Debian's docker.io with docker-compose, its daemon private.
type docker struct {
	world
	l       *lab.Lab
	compose string
}

func newDocker(w world) *docker { return &docker{world: w, l: w.lab("docker", 12)} }

func (d *docker) name() string   { return "docker" }
func (d *docker) host() *lab.Lab { return d.l }

// One replica: docker-compose can't publish a fixed port of several.
const dockerCompose = `version: "3.8"
services:
  web:
    image: example.org/hello:${HELLO_VERSION}
    ports: ["8080:80"]
    stop_grace_period: 30s
`

func (d *docker) up(ctx context.Context) error {
	if err := d.l.Up(ctx); err != nil {
		return err
	}
	var err error
	if d.compose, err = write(d.l, "docker-compose.yaml", dockerCompose); err != nil {
		return err
	}
	err = d.l.Start("dockerd", nil, "dockerd",
		"--data-root", d.l.Path("data"), "--exec-root", d.l.Path("exec"),
		"--pidfile", d.l.Path("dockerd.pid"), "-H", d.url())
	if err != nil {
		return err
	}
	if err := lab.Await(ctx, daemonLimit, func() error { return d.run(ctx, "version") }); err != nil {
		return err
	}
	for _, v := range []string{"v1", "v2"} {
		if err := d.run(ctx, "load", "-i", d.archive(v)); err != nil {
			return err
		}
	}
	return nil
}

func (d *docker) url() string { return "unix://" + d.l.Path("docker.sock") }

func (d *docker) run(ctx context.Context, args ...string) error {
	_, err := lab.Output(ctx, append([]string{"docker", "-H", d.url()}, args...)...)
	return err
}

func (d *docker) start(ctx context.Context) error {
	return d.run(ctx, "run", "-d", "--name", "web", "-p", port+":80", image("v1"))
}

func (d *docker) redeploy(ctx context.Context, version string) error {
	_, err := lab.OutputEnv(ctx, []string{"HELLO_VERSION=" + version}, d.composeCommand("up", "-d")...)
	return err
}

func (d *docker) composeCommand(args ...string) []string {
	return append([]string{"docker-compose", "-H", d.url(), "-p", "hello", "-f", d.compose}, args...)
}

func (d *docker) remove(ctx context.Context) error {
	err1 := d.run(ctx, "rm", "-f", "web")
	_, err2 := lab.OutputEnv(ctx, []string{"HELLO_VERSION=v1"}, d.composeCommand("down", "-t", "0")...)
	return errors.Join(err1, err2)
}

// podman is Debian's podman, which has no daemon.
type podman struct {
	world
	l *lab.Lab
}

func newPodman(w world) *podman { return &podman{world: w, l: w.lab("podman", 13)} }

func (p *podman) name() string   { return "podman" }
func (p *podman) host() *lab.Lab { return p.l }

func (p *podman) up(ctx context.Context) error {
	if err := p.l.Up(ctx); err != nil {
		return err
	}
	for _, v := range []string{"v1", "v2"} {
		if err := p.run(ctx, "load", "-q", "-i", p.archive(v)); err != nil {
			return err
		}
	}
	return nil
}

func (p *podman) run(ctx context.Context, args ...string) error {
	_, err := lab.Output(ctx, p.l.OnHost(append([]string{"podman",
		"--root", p.l.Path("root"), "--runroot", p.l.Path("run"), "--tmpdir", p.l.Path("tmp"),
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay"}, args...)...)...)
	return err
}

func (p *podman) start(ctx context.Context) error { return p.web(ctx, "v1") }

func (p *podman) redeploy(ctx context.Context, version string) error {
	return p.web(ctx, version, "--replace")
}

// web runs a replica. podman asks for more files and processes than a shell's
// hard limits may allow, and then fails; these are allowed everywhere and enough.
func (p *podman) web(ctx context.Context, version string, options ...string) error {
	args := append([]string{"run", "-d", "--name", "web", "-p", port + ":80",
		"--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024"}, options...)
	return p.run(ctx, append(args, image(version))...)
}

func (p *podman) remove(ctx context.Context) error { return p.run(ctx, "rm", "-f", "-t", "0", "web") }

// absent says which programs of a peer aren't installed.
func absent(programs ...string) string {
	var missing []string
	for _, p := range programs {
		if !installed(p) {
			missing = append(missing, p)
		}
	}
	return strings.Join(missing, ", ")
}
