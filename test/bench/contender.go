package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"dunnage/test/lab"
)

// port is the published port that everybody serves examples/hello on.
const port = "8080"

// contender is one way to run containers, on a lab host of its own.
type contender interface {
	name() string
	host() *lab.Lab
	// up starts the daemon, if there is one, and loads the images.
	up(ctx context.Context) error
	// start runs one replica of examples/hello v1, published, image present.
	start(ctx context.Context) error
	// redeploy brings all replicas of the redeploy measurement to version.
	redeploy(ctx context.Context, version string) error
	// remove removes what start or redeploy made.
	remove(ctx context.Context) error
}

// world is what all contenders share.
type world struct {
	root string // the checkout
	dir  string // holds the labs
}

func (w world) lab(name string, n uint8) *lab.Lab {
	return lab.New("dunnage-bench-"+name, filepath.Join(w.dir, name), n)
}

// agent starts an agent with the example's image on a lab host of its own.
func (w world) agent(ctx context.Context, name string, n uint8) (lab.Agent, error) {
	a := lab.Agent{Lab: w.lab(name, n), Program: w.bin("bin/dunnage")}
	if err := a.Lab.Up(ctx); err != nil {
		return a, err
	}
	if err := a.Start(ctx); err != nil {
		return a, err
	}
	return a, a.LoadImages(ctx, w.bin("build/images"), "hello-v1")
}

func (w world) bin(elem string) string { return filepath.Join(w.root, elem) }
func (w world) archive(version string) string {
	return filepath.Join(w.root, "build/images/hello-"+version+".tar")
}
func image(version string) string { return "example.org/hello:" + version }

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// write puts a file into a lab's folder and returns its path.
func write(l *lab.Lab, name, content string) (string, error) {
	path := l.Path(name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

// daemonLimit is for a daemon's start, on a busy machine.
const daemonLimit = 60 * time.Second

// dunnage is ourselves.
type dunnage struct {
	world
	agent lab.Agent
	one   string // Compose file with one replica
	three string
}

func newDunnage(w world) *dunnage {
	l := w.lab("dunnage", 10)
	return &dunnage{world: w, agent: lab.Agent{Lab: l, Program: w.bin("bin/dunnage")}}
}

func (d *dunnage) name() string   { return "dunnage" }
func (d *dunnage) host() *lab.Lab { return d.agent.Lab }

const oneReplica = `name: one
services:
  web:
    image: example.org/hello:v1
    ports: ["8080:80"]
    stop_grace_period: 1s
    x-dunnage: {drain: 0s}
`

func (d *dunnage) up(ctx context.Context) error {
	if err := d.host().Up(ctx); err != nil {
		return err
	}
	var err error
	if d.one, err = write(d.host(), "one.yaml", oneReplica); err != nil {
		return err
	}
	d.three = d.bin("examples/hello/compose.yaml")
	if err := d.agent.Start(ctx); err != nil {
		return err
	}
	return d.agent.LoadImages(ctx, d.bin("build/images"), "hello-v1", "hello-v2")
}

func (d *dunnage) start(ctx context.Context) error {
	_, err := d.agent.Run(ctx, nil, "deploy", "-f", d.one)
	return err
}

func (d *dunnage) redeploy(ctx context.Context, version string) error {
	_, err := d.agent.Run(ctx, []string{"HELLO_VERSION=" + version}, "deploy", "-f", d.three)
	return err
}

func (d *dunnage) remove(ctx context.Context) error {
	for _, project := range []string{"one", "hello"} {
		if out, err := d.agent.Run(ctx, nil, "ps", "-p", project, "--json"); err != nil || len(out) < 5 {
			continue // not deployed
		}
		if _, err := d.agent.Run(ctx, nil, "down", "-p", project); err != nil {
			return err
		}
	}
	return nil
}

// ctr is containerd's own client, without any network of the container's own:
// the least that a start can cost.
type ctr struct {
	world
	l *lab.Lab
	n int
}

func newCtr(w world) *ctr { return &ctr{world: w, l: w.lab("ctr", 11)} }

func (c *ctr) name() string   { return "ctr" }
func (c *ctr) host() *lab.Lab { return c.l }

func (c *ctr) up(ctx context.Context) error {
	if err := c.l.Up(ctx); err != nil {
		return err
	}
	config, err := write(c.l, "containerd.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, c.l.Path("root"), c.l.Path("state"), c.l.Path("c.sock"), c.l.Path("t.sock")))
	if err != nil {
		return err
	}
	if err := c.l.Start("containerd", nil, "containerd", "--config", config); err != nil {
		return err
	}
	return lab.Await(ctx, daemonLimit, func() error { return c.run(ctx, "images", "import", c.archive("v1")) })
}

func (c *ctr) run(ctx context.Context, args ...string) error {
	_, err := lab.Output(ctx, append([]string{"ctr", "-a", c.l.Path("c.sock")}, args...)...)
	return err
}

func (c *ctr) id() string { return fmt.Sprintf("web-%d", c.n) }

func (c *ctr) start(ctx context.Context) error {
	c.n++
	return c.run(ctx, "run", "-d", "--net-host", image("v1"), c.id(), "/hello", "-listen", ":"+port)
}

func (c *ctr) redeploy(context.Context, string) error { return errNoRedeploy }

func (c *ctr) remove(ctx context.Context) error {
	if err := c.run(ctx, "task", "rm", "-f", c.id()); err != nil {
		return err
	}
	return c.run(ctx, "container", "rm", c.id())
}
