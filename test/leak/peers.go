package leak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dunnage/test/lab"
)

// Columns of the peers.
const (
	DockerEnv     = "docker run -e"
	DockerCompose = "docker compose, secrets with file"
	PodmanMount   = "podman secret, type=mount"
	PodmanEnv     = "podman secret, type=env"
)

// Peer is another engine in a lab of its own, used as its manual says.
type Peer struct {
	Name     string
	Findings *Findings
	lab      *lab.Lab
	procs    *Processes
	begun    time.Time
	command  []string // its client
}

func newPeer(name string, l *lab.Lab, canaries []Canary) *Peer {
	return &Peer{Name: name, Findings: NewFindings(canaries), lab: l, begun: time.Now().Add(-time.Second)}
}

// run runs the client and looks through what it says.
func (p *Peer) run(ctx context.Context, stdin string, args ...string) (string, error) {
	return p.exec(ctx, stdin, append(p.command[:len(p.command):len(p.command)], args...)...)
}

func (p *Peer) exec(ctx context.Context, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	cmd.WaitDelay = time.Second // what it leaves running may hold its output
	if err := p.procs.start(cmd); err != nil {
		return "", err
	}
	err := p.procs.done(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	p.Findings.Text(Answers, fmt.Sprintf("output of %.300q", argv), out.Bytes())
	if err != nil {
		err = fmt.Errorf("%.300q: %w\n%s", argv, err, out.Bytes())
	}
	return out.String(), err
}

// has checks by the hashes that the container has the values.
func (p *Peer) has(ctx context.Context, container string, canaries []Canary, named func(Canary) string) error {
	out, err := p.run(ctx, "", "exec", container, "/"+Program, "sums")
	if err != nil {
		return err
	}
	for _, c := range canaries {
		sum := sha256.Sum256([]byte(c.Values[0]))
		if want := named(c) + " " + hex.EncodeToString(sum[:]); !strings.Contains(out, want+"\n") {
			return fmt.Errorf("%s: %s isn't in the container:\n%.1000s", p.Name, c.Name, out)
		}
	}
	return nil
}

func variable(c Canary) string  { return "$" + c.Variable() }
func inSecrets(c Canary) string { return "/run/secrets/" + c.Name }

// disk looks through the lab's folder, but not through file systems in memory.
func (p *Peer) disk(in func(Place) Place) {
	place := func(path string) Place {
		slashed := path + "/"
		switch {
		case path == p.lab.Path("operator") || InMemory(path) == nil:
			return ""
		case strings.Contains(slashed, "/overlay2/"), strings.Contains(slashed, "/root/overlay/"), strings.Contains(slashed, "/merged/"), strings.Contains(slashed, "/rootfs/"):
			return in(Layers)
		case strings.HasSuffix(path, ".log"), strings.HasSuffix(path, "-json.log"):
			return in(Logs)
		case strings.HasPrefix(path, p.lab.Path("exec")), strings.HasPrefix(path, p.lab.Path("run")), strings.HasPrefix(path, p.lab.Path("tmp")):
			return in(Bundles)
		}
		return in(Data)
	}
	p.Findings.Tree(p.lab.Dir, place)
}

// scan looks everywhere while the containers run.
func (p *Peer) scan(ctx context.Context) error {
	time.Sleep(10 * every)
	p.disk(func(pl Place) Place { return pl })
	p.Findings.Tree(p.lab.Path("operator"), all(Sources))
	scanTemp(p.Findings, p.begun, filepath.Dir(p.lab.Dir))
	return scanRules(ctx, p.Findings, p.lab)
}

// Docker scans Docker, its daemon private: variables by -e, and Compose's secrets
// with file, which are what it has without Swarm.
func Docker(ctx context.Context, l *lab.Lab, archive string) (p *Peer, err error) {
	env, files := NewCanaries(DockerEnv, "e", Secrets), NewCanaries(DockerCompose, "f", Secrets)
	p = newPeer("docker", l, append(env[:len(env):len(env)], files...))
	url := "unix://" + l.Path("docker.sock")
	p.command = []string{"docker", "-H", url}
	if err := errors.Join(l.Up(ctx), os.MkdirAll(l.Path("operator"), 0o700)); err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	p.procs = Watch(ctx, p.Findings)
	defer p.procs.Stop()
	if err := l.Start("dockerd", nil, "dockerd", "--data-root", l.Path("data"), "--exec-root", l.Path("exec"), "--pidfile", l.Path("dockerd.pid"), "-H", url); err != nil {
		return p, err
	}
	if err := lab.Await(ctx, time.Minute, func() error { _, err := p.run(ctx, "", "version"); return err }); err != nil {
		return p, err
	}
	if _, err := p.run(ctx, "", "load", "-i", archive); err != nil {
		return p, err
	}
	args := []string{"run", "-d", "--name", "env", "--init"}
	for _, c := range env {
		args = append(args, "-e", c.Variable()+"="+c.Values[0])
	}
	if _, err := p.run(ctx, "", append(args, imageName)...); err != nil {
		return p, err
	}
	compose := "version: \"3.8\"\nservices:\n  files:\n    image: " + imageName + "\n    container_name: files\n    secrets:\n"
	declared := "secrets:\n"
	for _, c := range files {
		compose += "      - " + c.Name + "\n"
		declared += "  " + c.Name + ": {file: ./" + c.Name + ".txt}\n"
		if err := os.WriteFile(l.Path("operator", c.Name+".txt"), []byte(c.Values[0]), 0o600); err != nil {
			return p, err
		}
	}
	if err := os.WriteFile(l.Path("operator", "compose.yaml"), []byte(compose+declared), 0o600); err != nil {
		return p, err
	}
	composed := []string{"docker-compose", "-H", url, "-p", "leak", "-f", l.Path("operator", "compose.yaml")}
	for _, verb := range [][]string{{"config"}, {"up", "-d"}, {"ps"}, {"logs"}} {
		if _, err := p.exec(ctx, "", append(composed[:len(composed):len(composed)], verb...)...); err != nil {
			return p, err
		}
	}
	if err := errors.Join(p.has(ctx, "env", env, variable), p.has(ctx, "files", files, inSecrets)); err != nil {
		return p, err
	}
	for _, line := range []string{"ps -a --no-trunc", "inspect env files", "logs env", "logs files", "info", "system events --since 1h --until 0s", "images"} {
		if _, err := p.run(ctx, "", strings.Fields(line)...); err != nil {
			return p, err
		}
	}
	if err := p.scan(ctx); err != nil {
		return p, err
	}
	if _, err := p.run(ctx, "", "rm", "-f", "env"); err != nil {
		return p, err
	}
	if _, err := p.exec(ctx, "", append(composed, "down", "-t", "1")...); err != nil {
		return p, err
	}
	if err := os.RemoveAll(l.Path("operator")); err != nil {
		return p, err
	}
	p.disk(func(Place) Place { return After })
	return p, p.Findings.Err()
}

// Podman scans podman and its secrets, with the driver that it has unless told
// otherwise: they are set by standard input, and given as files and as variables.
func Podman(ctx context.Context, l *lab.Lab, archive string) (p *Peer, err error) {
	mount, env := NewCanaries(PodmanMount, "f", Secrets), NewCanaries(PodmanEnv, "e", Secrets)
	p = newPeer("podman", l, append(mount[:len(mount):len(mount)], env...))
	p.command = l.OnHost("podman", "--root", l.Path("root"), "--runroot", l.Path("run"), "--tmpdir", l.Path("tmp"),
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay")
	if err := errors.Join(l.Up(ctx), os.MkdirAll(l.Path("operator"), 0o700)); err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	p.procs = Watch(ctx, p.Findings)
	defer p.procs.Stop()
	if _, err := p.run(ctx, "", "load", "-q", "-i", archive); err != nil {
		return p, err
	}
	// As in the bench: what podman asks for by default may be more than is allowed.
	run := []string{"run", "-d", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024"}
	driver := []string{"--driver-opts", "path=" + l.Path("secrets")} // else it is the machine's own store
	for _, s := range []struct {
		name, options string
		canaries      []Canary
	}{{"files", "", mount}, {"env", ",type=env,target=", env}} {
		args := append(run[:len(run):len(run)], "--name", s.name)
		for _, c := range s.canaries {
			if _, err := p.run(ctx, c.Values[0], append(append([]string{"secret", "create"}, driver...), c.Name, "-")...); err != nil {
				return p, err
			}
			option := c.Name
			if s.options != "" {
				option += s.options + c.Variable()
			}
			args = append(args, "--secret", option)
		}
		if _, err := p.run(ctx, "", append(args, imageName)...); err != nil {
			return p, err
		}
	}
	if err := errors.Join(p.has(ctx, "env", env, variable), p.has(ctx, "files", mount, inSecrets)); err != nil {
		return p, err
	}
	for _, line := range []string{"ps -a --no-trunc", "inspect env files", "logs env", "logs files", "info", "secret ls", "secret inspect f000 e000", "events --stream=false", "images"} {
		if _, err := p.run(ctx, "", strings.Fields(line)...); err != nil {
			return p, err
		}
	}
	if err := p.scan(ctx); err != nil {
		return p, err
	}
	for _, line := range []string{"rm -f -t 1 env files", "secret rm -a"} {
		if _, err := p.run(ctx, "", strings.Fields(line)...); err != nil {
			return p, err
		}
	}
	p.disk(func(Place) Place { return After })
	return p, p.Findings.Err()
}
