// Package lab builds the surroundings in which the demo and the bench run: a
// network namespace that acts as the host, one that acts as its client, a veth
// pair between them, and processes that are known by pid and start time, so
// that all of it can be removed again, also by a later process. Nothing of the
// machine's own network changes.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Lab is one host with one client.
type Lab struct {
	Name   string     // prefix of the namespaces' names, and the agent's name in containerd and in the cgroup tree
	Dir    string     // holds everything on disk; removed by Down
	Host   netip.Addr // the host's address on the wire
	Client netip.Addr

	// OnMachine leaves namespaces out: the host and the client are the
	// machine itself.
	OnMachine bool
}

// New describes the lab number n (0 to 99) called name, with its files under
// dir. The addresses are of the range for benchmarks, 198.18.0.0/15.
func New(name, dir string, n uint8) *Lab {
	return &Lab{
		Name:   name,
		Dir:    dir,
		Host:   netip.AddrFrom4([4]byte{198, 18, n, 1}),
		Client: netip.AddrFrom4([4]byte{198, 18, n, 2}),
	}
}

// OnMachine is a lab without namespaces, reached at 127.0.0.1.
func OnMachine(name, dir string) *Lab {
	lo := netip.MustParseAddr("127.0.0.1")
	return &Lab{Name: name, Dir: dir, Host: lo, Client: lo, OnMachine: true}
}

func (l *Lab) hostNS() string   { return l.Name + "-host" }
func (l *Lab) clientNS() string { return l.Name + "-client" }

// Up makes the folder and the namespaces. What an earlier run left is removed
// first.
func (l *Lab) Up(ctx context.Context) error {
	if err := l.Down(ctx); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if err := os.MkdirAll(l.pids(), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return l.addNetwork(ctx)
}

// addNetwork makes the namespaces and the wire between them.
func (l *Lab) addNetwork(ctx context.Context) error {
	if l.OnMachine {
		return nil
	}
	h, c := l.hostNS(), l.clientNS()
	for _, line := range []string{
		"ip netns add " + h,
		"ip netns add " + c,
		"ip -n " + h + " link set lo up",
		"ip -n " + c + " link set lo up",
		"ip -n " + h + " link add wire type veth peer name wire netns " + c,
		"ip -n " + h + " addr add " + l.Host.String() + "/24 dev wire",
		"ip -n " + c + " addr add " + l.Client.String() + "/24 dev wire",
		"ip -n " + h + " link set wire up",
		"ip -n " + c + " link set wire up",
		// Hundreds of connections a second for minutes need more source ports
		// than the 28,000 that a namespace has to begin with.
		"nsenter --net=" + nsPath(c) + " sysctl -qw net.ipv4.ip_local_port_range=1024\t65535 net.ipv4.tcp_tw_reuse=1",
	} {
		if _, err := Output(ctx, strings.Split(line, " ")...); err != nil {
			return err
		}
	}
	return nil
}

func nsPath(name string) string { return "/run/netns/" + name }

// OnHost is argv, run on the lab's host. (`ip netns exec` would hide the
// cgroups from containerd and runc.)
func (l *Lab) OnHost(argv ...string) []string { return l.enter(l.hostNS(), argv) }

// OnClient is argv, run on the lab's client.
func (l *Lab) OnClient(argv ...string) []string { return l.enter(l.clientNS(), argv) }

func (l *Lab) enter(ns string, argv []string) []string {
	if l.OnMachine {
		return argv
	}
	return append([]string{"nsenter", "--net=" + nsPath(ns), "--"}, argv...)
}

// ClientPath is the client's network namespace, for setns.
func (l *Lab) ClientPath() string {
	if l.OnMachine {
		return "/proc/self/ns/net"
	}
	return nsPath(l.clientNS())
}

// Path is a path in the lab's folder.
func (l *Lab) Path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

// commandLimit is far more than any of the commands takes; a hanging daemon
// must not hang the caller.
const commandLimit = 3 * time.Minute

// Output runs argv and returns its standard output; an error carries what it
// said on standard error.
func Output(ctx context.Context, argv ...string) (string, error) {
	return OutputEnv(ctx, nil, argv...)
}

// OutputEnv is Output with KEY=VALUE pairs added to the environment.
func OutputEnv(ctx context.Context, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second // a daemon that inherited the pipes must not keep us
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return string(out), fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(out), nil
}

// Start starts a daemon on the lab's host that outlives the caller. Its output
// goes to the file <name>.log in the lab's folder.
func (l *Lab) Start(name string, env []string, argv ...string) error {
	argv = l.OnHost(argv...)
	log, err := os.OpenFile(l.Path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // reap it, should it end before us
	return l.record(name, cmd.Process.Pid)
}

// Await calls ok until it returns nil, and gives up with its last error.
func Await(ctx context.Context, limit time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up after %v: %w", limit, err)
		case <-tick.C:
		}
	}
}
