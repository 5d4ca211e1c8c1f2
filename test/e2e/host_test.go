// Package e2e runs the programs as users do: an agent with a private
// containerd on a host of its own, asked by the command line, with clients on
// another host.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dunnage/api"
	"dunnage/internal/testenv"
	"dunnage/spec"
	"dunnage/test/images"
	"dunnage/test/lab"
	"dunnage/test/load"
)

// built are the programs and images that all tests share.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dunnage-e2e-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{"dunnage": "dunnage/cmd/dunnage", "dunnage-log": "dunnage/cmd/dunnage-log", "dunnage-init": "dunnage/cmd/dunnage-init", "dunnage-load": "dunnage/test/load/dunnage-load"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	for _, v := range images.Versions {
		img, err := images.Hello(context.Background(), v)
		if err != nil {
			return dir, err
		}
		if err := images.Write(filepath.Join(dir, "hello-"+v+".tar"), img); err != nil {
			return dir, err
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("DUNNAGE_ROOT_TESTS") != "" {
		if dir, err := built(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

var hosts atomic.Uint32

// host is one simulated machine with a running agent, and one client.
type host struct {
	t     *testing.T
	lab   *lab.Lab
	agent lab.Agent
	tools string
	dir   string // of manifests
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := newBareHost(t)
	h.start()
	if err := h.agent.LoadImages(t.Context(), h.tools, "hello-v1", "hello-v2"); err != nil {
		t.Fatal(err)
	}
	return h
}

// newBareHost is a host whose agent isn't started yet.
func newBareHost(t *testing.T) *host {
	t.Helper()
	testenv.Root(t)
	tools, err := built()
	if err != nil {
		t.Fatal(err)
	}
	n := hosts.Add(1)
	dir, err := os.MkdirTemp("", "dn") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	l := lab.New(fmt.Sprintf("e2e%d-%d", os.Getpid(), n), filepath.Join(dir, "lab"), uint8(100+n%100))
	h := &host{t: t, lab: l, tools: tools, dir: t.TempDir(), agent: lab.Agent{Lab: l, Program: filepath.Join(tools, "dunnage")}}
	t.Cleanup(h.down)
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// down removes everything; a failed test shows what the agent said.
func (h *host) down() {
	if h.t.Failed() {
		for _, f := range []string{"agent.log", "run/containerd/containerd.log", "state/containerd.log"} {
			if b, err := os.ReadFile(h.lab.Path(f)); err == nil {
				h.t.Logf("%s:\n%s", f, b[max(0, len(b)-8000):])
			}
		}
	}
	if err := h.lab.Down(context.Background()); err != nil {
		h.t.Error(err)
	}
	_ = os.RemoveAll(filepath.Dir(h.lab.Dir))
}

func (h *host) start() {
	h.t.Helper()
	if err := h.agent.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// in is the host as a subtest sees it.
func (h *host) in(t *testing.T) *host {
	sub := *h
	sub.t = t
	return &sub
}

// result is what a verb printed and its exit code.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a verb in a folder without a manifest.
func (h *host) run(env []string, args ...string) result {
	h.t.Helper()
	return h.runIn("", env, args...)
}

// runIn is run with something on standard input.
func (h *host) runIn(stdin string, env []string, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.agent.Program, args...)
	cmd.Dir = h.lab.Dir // no manifest lies there
	cmd.Env = append(append(os.Environ(), "DUNNAGE_HOST="+h.agent.URL()), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("dunnage %v: %v", args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs a verb that has to succeed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	r := h.run(nil, args...)
	if r.code != 0 {
		h.t.Fatalf("dunnage %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// file writes a manifest.
func (h *host) file(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// deploy writes compose.yaml and deploys it.
func (h *host) deploy(text string, args ...string) result {
	h.t.Helper()
	return h.run(nil, append([]string{"deploy", "-f", h.file("compose.yaml", text)}, args...)...)
}

// plan writes compose.yaml and asks what deploying it would do.
func (h *host) plan(text string) result {
	h.t.Helper()
	return h.run(nil, "plan", "-f", h.file("compose.yaml", text))
}

func (h *host) mustDeploy(text string, args ...string) {
	h.t.Helper()
	if r := h.deploy(text, args...); r.code != 0 {
		h.t.Fatalf("deploy: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// ps is `dunnage ps --json` of all projects.
func (h *host) ps() []spec.ReplicaStatus {
	h.t.Helper()
	var out []spec.ReplicaStatus
	if err := json.Unmarshal([]byte(h.must("ps", "--json")), &out); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// eventually waits for a state of the world.
func (h *host) eventually(limit time.Duration, what string, ok func() error) {
	h.t.Helper()
	if err := lab.Await(h.t.Context(), limit, ok); err != nil {
		h.t.Fatalf("%s: %v\n%s", what, err, h.must("ps"))
	}
}

// ready lists the ready replicas, once there are n of them and no others.
func (h *host) ready(n int) []spec.ReplicaStatus {
	h.t.Helper()
	var rs []spec.ReplicaStatus
	h.eventually(time.Minute, fmt.Sprintf("%d replicas ready and no others", n), func() error {
		rs = h.ps()
		if len(rs) != n {
			return fmt.Errorf("%d replicas", len(rs))
		}
		for _, r := range rs {
			if r.State != spec.StateReady {
				return fmt.Errorf("%s is %s", r.Replica, r.State)
			}
		}
		return nil
	})
	return rs
}

// get asks the published port from the client host.
func (h *host) get(port int, path string) (string, error) {
	return lab.Output(h.t.Context(), h.lab.OnClient("curl", "-sS", "-m", "5", "http://"+h.lab.Host.String()+":"+strconv.Itoa(port)+path)...)
}

// answers checks that the port answers with text in its body.
func (h *host) answers(port int, text string) {
	h.t.Helper()
	body, err := h.get(port, "/")
	if err != nil || !strings.Contains(body, text) {
		h.t.Fatalf("port %d answers %q, %v; want %q", port, body, err, text)
	}
}

// underLoad runs f while clients ask the port: new connections, keep-alive
// ones and downloads. None may fail.
func (h *host) underLoad(port int, f func()) load.Report {
	h.t.Helper()
	return h.under(port, load.Config{
		Rate: 200, KeepAlive: 10,
		Downloads: 4, DownloadPath: "/download?bytes=300000&rate=200000", DownloadBytes: 300000,
	}, f)
}

// under is underLoad with a load of the caller's choice. It lasts a second at
// least: what f brings about may show after it, and a load that asked hardly
// anything tells nothing.
func (h *host) under(port int, c load.Config, f func()) load.Report {
	h.t.Helper()
	c.Addr = h.lab.Host.String() + ":" + strconv.Itoa(port)
	traffic, err := h.lab.StartTraffic(filepath.Join(h.tools, "dunnage-load"), c)
	if err != nil {
		h.t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped { // f gave up
			_, _ = traffic.Stop()
		}
	}()
	began := time.Now()
	f()
	time.Sleep(time.Until(began.Add(time.Second)))
	stopped = true
	rep, err := traffic.Stop()
	if err != nil {
		h.t.Fatal(err)
	}
	if rep.Failed != 0 || rep.Asked < 50 {
		h.t.Errorf("under load: %s", rep)
	}
	return rep
}

// rulesEqual checks that the kernel has what the agent renders.
func (h *host) rulesEqual() {
	h.t.Helper()
	var set spec.RuleSet
	if err := json.Unmarshal([]byte(h.must("net", "rules", "--json")), &set); err != nil {
		h.t.Fatal(err)
	}
	if set.Rendered != set.Kernel || set.Rendered == "" {
		h.t.Errorf("rules differ\n--- rendered\n%s\n--- kernel\n%s", set.Rendered, set.Kernel)
	}
}

// leftovers lists namespaces, links, host files and containers that none of
// the replicas owns.
func (h *host) leftovers(owners []spec.ReplicaStatus) []string {
	h.t.Helper()
	owned := func(id string) bool {
		return slices.ContainsFunc(owners, func(r spec.ReplicaStatus) bool { return r.Replica == id })
	}
	var out []string
	for _, dir := range []string{"run/netns", "run/replicas"} {
		entries, err := os.ReadDir(h.lab.Path(dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			if !owned(e.Name()) {
				out = append(out, dir+"/"+e.Name())
			}
		}
	}
	links, err := lab.Output(h.t.Context(), h.lab.OnHost("ip", "-br", "link")...)
	if err != nil {
		h.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(links) {
		if strings.HasPrefix(line, "dun") {
			n++
		}
	}
	for _, r := range owners {
		if len(r.Addresses) > 0 {
			n--
		}
	}
	if n != 0 {
		out = append(out, fmt.Sprintf("%+d links for %d replicas", n, len(owners)))
	}
	for _, kind := range []string{"containers", "snapshots"} {
		list, err := h.ctr(kind, "ls", "-q")
		if kind == "snapshots" {
			list, err = h.ctr("snapshots", "ls")
		}
		if err != nil {
			h.t.Fatal(err)
		}
		for line := range strings.Lines(list) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] == "KEY" || strings.HasPrefix(f[0], "sha256:") || owned(f[0]) {
				continue
			}
			out = append(out, kind[:len(kind)-1]+" "+f[0])
		}
	}
	return out
}

func (h *host) ctr(args ...string) (string, error) {
	return lab.Output(h.t.Context(), append([]string{"ctr", "-a", h.lab.Path("run/containerd/containerd.sock"), "-n", h.lab.Name}, args...)...)
}

// clean checks that there is nothing but the replicas, and that the rules are
// the rendered ones.
func (h *host) clean(owners []spec.ReplicaStatus) {
	h.t.Helper()
	h.eventually(30*time.Second, "nothing left over", func() error {
		if left := h.leftovers(owners); len(left) > 0 {
			return errors.New(strings.Join(left, ", "))
		}
		return nil
	})
	h.rulesEqual()
}

// events lists what has happened in a project so far.
func (h *host) events(project string) []spec.Event {
	h.t.Helper()
	client, err := api.Dial(h.agent.URL(), api.Version{})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []spec.Event
	err = client.Events(h.t.Context(), spec.EventRequest{Project: project}, func(e spec.Event) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}
