package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

const appRef = "example.org/app:1"

// bench is an engine on a private containerd.
type bench struct {
	*Engine
	t      *testing.T
	ctx    context.Context
	daemon *testenv.Daemon
	cfg    Config
}

func newBench(t *testing.T) *bench {
	t.Helper()
	d := testenv.Containerd(t)
	cfg := Config{
		Address: d.Address, Namespace: d.Namespace,
		StateDir: filepath.Join(d.Dir, "lib"), RunDir: filepath.Join(d.Dir, "run"),
		LogBinary: testenv.Program(t, "./cmd/dunnage-log"), InitBinary: testenv.Program(t, "./cmd/dunnage-init"),
		HostsDir: filepath.Join(d.Dir, "certs.d"), DockerConfig: filepath.Join(d.Dir, "docker"),
	}
	b := &bench{t: t, ctx: testenv.Context(t), daemon: d, cfg: cfg}
	b.connect()
	return b
}

// connect opens an engine, as a new agent does.
func (b *bench) connect() {
	b.t.Helper()
	e, err := Connect(b.ctx, b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Engine = e
	b.t.Cleanup(func() { _ = e.Close() }) // twice is harmless
}

// app loads the test image and returns it as a release pins it.
func (b *bench) app() spec.PinnedImage {
	b.t.Helper()
	return b.load(appRef, testenv.AppImage(b.t, "1"))
}

func (b *bench) load(ref string, img v1.Image) spec.PinnedImage {
	b.t.Helper()
	if _, err := b.Load(b.ctx, testenv.Archive(b.t, map[string]v1.Image{ref: img})); err != nil {
		b.t.Fatal(err)
	}
	p, err := b.Resolve(b.ctx, ref)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// request asks for replica n of a service whose container runs testapp with args.
func request(image spec.PinnedImage, n int, args ...string) spec.CreateRequest {
	c := spec.Container{Image: image.Ref, Command: args}
	gen := spec.Generation(c, image.Digest, "", nil)
	return spec.CreateRequest{
		ReplicaKey: spec.ReplicaKey{ID: spec.ReplicaID("p", "web", gen, n), Project: "p", Service: "web", Generation: gen, Number: n},
		Image:      image, Container: c, Hostname: "web-1",
	}
}

func (b *bench) create(r spec.CreateRequest) {
	b.t.Helper()
	if err := b.Create(b.ctx, r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) run(r spec.CreateRequest) {
	b.t.Helper()
	b.create(r)
	if err := b.Start(b.ctx, r.ID); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) instance(id string) spec.Instance {
	b.t.Helper()
	list, err := b.Instances(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, i := range list {
		if i.ID == id {
			return i
		}
	}
	return spec.Instance{}
}

// await waits for an instance that satisfies ok, looking at every change.
func (b *bench) await(id, what string, ok func(spec.Instance) bool) spec.Instance {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	changes := b.Changes(ctx)
	for {
		i := b.instance(id)
		if ok(i) {
			return i
		}
		if _, more := <-changes; !more {
			b.t.Fatalf("%s is not %s: %+v", id, what, i)
		}
	}
}

func (b *bench) awaitPhase(id string, p spec.Phase) spec.Instance {
	b.t.Helper()
	return b.await(id, string(p), func(i spec.Instance) bool { return i.Phase == p })
}

// output runs the container to its end and returns its log.
func (b *bench) output(r spec.CreateRequest) string {
	b.t.Helper()
	b.run(r)
	b.awaitPhase(r.ID, spec.PhaseExited)
	if err := b.Remove(b.ctx, r.ID); err != nil { // the log is complete when the task is deleted
		b.t.Fatal(err)
	}
	return b.log(r.ReplicaKey)
}

// log returns the texts of a log file.
func (b *bench) log(k spec.ReplicaKey) string {
	b.t.Helper()
	f, err := os.ReadFile(b.LogPath(k))
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(f)) {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) == 4 {
			_, _ = io.WriteString(&out, parts[3])
		}
	}
	return out.String()
}

// exec runs a command in a replica.
func (b *bench) exec(id, user string, command ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	code, err := b.Exec(b.ctx, spec.ExecRequest{Replica: id, User: user, Command: command}, spec.Terminal{Stdout: &out, Stderr: &errs})
	if err != nil {
		b.t.Fatal(err)
	}
	return code, out.String(), errs.String()
}

// file writes a file on the host.
func (b *bench) file(name, body string) string {
	b.t.Helper()
	path := filepath.Join(b.daemon.Dir, name)
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// awaitReady waits until a replica has logged "ready".
func (b *bench) awaitReady(r spec.CreateRequest) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	ready := errors.New("ready")
	err := b.Logs(ctx, spec.LogRequest{Project: r.Project, Services: []string{r.Service}, Tail: -1, Follow: true}, func(l spec.LogLine) error {
		if l.Replica == r.ID && strings.TrimRight(string(l.Text), "\r") == "ready" {
			return ready
		}
		return nil
	})
	if !errors.Is(err, ready) {
		b.t.Fatalf("%s does not become ready: %v", r.ID, err)
	}
}

// unowned puts a sleeping process of the test into a cgroup.
func (b *bench) unowned(group string) int {
	b.t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // killed by the test
	b.t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return cmd.Process.Pid
}

func nullIO(string) (cio.IO, error) { return cio.NullIO("") }
