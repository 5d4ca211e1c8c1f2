package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Agent is a dunnage agent on a lab's host, with a private containerd.
type Agent struct {
	Lab     *Lab
	Program string   // path of bin/dunnage
	Flags   []string // beside those that Start gives
	Env     []string // KEY=VALUE pairs, beside those of this process
	Through []string // a command that becomes the agent, which is given as its arguments; none = it is started itself
}

// The pools of a lab's agent; agents in different namespaces may share them.
var (
	Pool  = netip.MustParsePrefix("10.213.0.0/16")
	Pool6 = netip.MustParsePrefix("fd00:d0:213::/48")
)

// RunDir is the agent's --run-dir.
func (a Agent) RunDir() string { return a.Lab.Path("run") }

func (a Agent) socket() string { return a.Lab.Path("agent.sock") }

// URL is what DUNNAGE_HOST must say to reach the agent.
func (a Agent) URL() string { return "unix://" + a.socket() }

// Start starts the agent and waits until it answers.
func (a Agent) Start(ctx context.Context) error {
	if err := a.Launch(); err != nil {
		return err
	}
	return Await(ctx, 30*time.Second, func() error {
		if a.Lab.Pid("agent") == 0 {
			return fmt.Errorf("the agent ended; see %s", a.Lab.Path("agent.log"))
		}
		_, err := a.Run(ctx, nil, "ps", "--json")
		return err
	})
}

// Launch starts the agent.
func (a Agent) Launch() error {
	if _, err := os.Stat(a.Program); err != nil {
		return fmt.Errorf("no %s: run make build: %w", a.Program, err)
	}
	args := append(slices.Clone(a.Through), append([]string{a.Program, "agent",
		"--state-dir", a.Lab.Path("state"),
		"--run-dir", a.RunDir(),
		"--socket", a.socket(),
		"--containerd", "managed",
		"--namespace", a.Lab.Name,
		"--pool", Pool.String(),
		"--pool6", Pool6.String()}, a.Flags...)...)
	return a.Lab.Start("agent", a.Env, args...)
}

// Run runs a verb and returns what it printed.
func (a Agent) Run(ctx context.Context, env []string, args ...string) (string, error) {
	return OutputEnv(ctx, append(env, "DUNNAGE_HOST="+a.URL()), append([]string{a.Program}, args...)...)
}

// LoadImages loads the archives called names (without .tar) from folder.
func (a Agent) LoadImages(ctx context.Context, folder string, names ...string) error {
	for _, n := range names {
		if _, err := a.Run(ctx, nil, "image", "load", filepath.Join(folder, n+".tar")); err != nil {
			return err
		}
	}
	return nil
}
