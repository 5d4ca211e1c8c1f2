package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command in a running replica",
		ArgsUsage: "SERVICE|REPLICA COMMAND [ARG...]",
		Description: "Runs in the first running replica of the service, or in the one that --index or its name names: " +
			"web-1 as `logs` shows it, shop-web-1 as docker would, or in full as `ps` has it. With a terminal at both ends the command gets one too. The exit code is the command's. " +
			"Flags stand before the command: what follows it is its own.\n\n" +
			"Example:\n   dunnage exec web sh",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "index", Usage: "in replica `NUMBER` of the service"},
			&cli.BoolFlag{Name: "no-tty", Aliases: []string{"T"}, Usage: "no terminal for the command"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "a terminal for the command; the default when both ends are one"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "pass standard input on; always done"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "as `USER[:GROUP]`; else the service's"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "in directory `DIR`; else the service's"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "with variable `NAME=VALUE`, or NAME with its value here (repeats)"},
		},
		Action: p.withAgent(p.exec),
	}
}

func (p *program) exec(ctx context.Context, c *cli.Context, agent *api.Client) error {
	if err := wantArgs(c, 2, -1); err != nil {
		return err
	}
	st, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	replica, err := p.target(c, st, c.Args().First())
	if err != nil {
		return err
	}
	r := spec.ExecRequest{
		Replica: replica, Command: c.Args().Tail(), User: c.String("user"), WorkingDir: c.String("workdir"),
		Env: p.variables(c.StringSlice("env")),
		TTY: c.Bool("tty") || p.terminal.stdin && p.terminal.stdout && !c.Bool("no-tty"),
	}
	code, err := p.runExec(ctx, agent, r)
	if err != nil {
		return err
	}
	if code != 0 {
		return &exitCode{code: code}
	}
	return nil
}

// variables fills in the values of names that stand alone.
func (p *program) variables(list []string) []string {
	out := slices.Clone(list)
	for i, kv := range out {
		if !strings.Contains(kv, "=") {
			out[i] = kv + "=" + p.getenv(kv)
		}
	}
	return out
}

// target finds the replica that exec is about: by its own name, or by a service
// of the project. A name that says the project needs no manifest.
func (p *program) target(c *cli.Context, st spec.Status, name string) (string, error) {
	if found := calledInFull(st, name); len(found) > 0 {
		return pickCalled(found, name)
	}
	project, err := p.findProject(c)
	switch {
	case err != nil:
		return "", err
	case project == "":
		return "", &exitCode{code: exitError, err: fmt.Errorf("no service or replica %s: there is no such replica, and no manifest here to find a service in", name), hint: "name a service's project with -p; `dunnage ps` lists the replicas"}
	}
	services, found := deployed(st, project)
	switch {
	case !found:
		return "", noProject(project)
	case !slices.Contains(services, name):
		if called := selectReplicas(st, project, []string{name}); len(called) > 0 {
			return pickCalled(called, name)
		}
		return "", fmt.Errorf("no service or replica %s%s", name, whereof(project, services))
	}
	index, problem := c.Int("index"), "service "+name+" has no running replica"
	if index > 0 {
		problem = fmt.Sprintf("%s %d", problem, index)
	}
	return pick(selectReplicas(st, project, []string{name}), index, problem)
}

// calledInFull are the replicas whose name with the project is name.
func calledInFull(st spec.Status, name string) []spec.ReplicaStatus {
	return slices.DeleteFunc(selectReplicas(st, "", nil), func(r spec.ReplicaStatus) bool {
		return name != r.Replica && name != r.Project+"-"+spec.ShortReplica(r.Service, r.Replica)
	})
}

// pickCalled is pick among the generations of one number. Where "-" stands in
// names, the same one may mean replicas of two services.
func pickCalled(replicas []spec.ReplicaStatus, name string) (string, error) {
	for _, r := range replicas {
		if r.Project != replicas[0].Project || r.Service != replicas[0].Service {
			return "", fmt.Errorf("%s may be %s or %s: use the full name", name, replicas[0].Replica, r.Replica)
		}
	}
	return pick(replicas, 0, "replica "+name+" isn't running")
}

// pick chooses among replicas: one that takes connections before one that only
// runs, then the lowest number. Where none runs, the error is problem.
func pick(replicas []spec.ReplicaStatus, index int, problem string) (string, error) {
	running := slices.DeleteFunc(slices.Clone(replicas), func(r spec.ReplicaStatus) bool {
		return r.Pid == 0 || index > 0 && r.Number != index
	})
	if len(running) == 0 {
		return "", &exitCode{code: exitError, err: errors.New(problem), hint: "see `dunnage ps`"}
	}
	slices.SortStableFunc(running, func(a, b spec.ReplicaStatus) int {
		if a.Routed != b.Routed {
			if a.Routed {
				return -1
			}
			return 1
		}
		return a.Number - b.Number
	})
	return running[0].Replica, nil
}

// runExec gives the command this terminal, in raw mode, for as long as it runs.
func (p *program) runExec(ctx context.Context, agent *api.Client, r spec.ExecRequest) (int, error) {
	if !r.TTY || !p.terminal.stdin {
		return agent.Exec(ctx, r, p.stdin, p.stdout, p.stderr, nil)
	}
	fd := int(os.Stdin.Fd())
	if w, h, err := term.GetSize(fd); err == nil {
		r.Cols, r.Rows = uint16(w), uint16(h)
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return 0, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	defer func() { _ = term.Restore(fd, old) }() // nothing better can be done about it
	sizes, stop := watchSize(fd)
	defer stop()
	return agent.Exec(ctx, r, p.stdin, p.stdout, p.stderr, sizes)
}

// watchSize delivers the terminal's size each time it changes, until stop.
func watchSize(fd int) (sizes <-chan [2]uint16, stop func()) {
	changed, out, done := make(chan os.Signal, 1), make(chan [2]uint16), make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		defer close(out)
		for {
			select {
			case <-changed:
			case <-done:
				return
			}
			w, h, err := term.GetSize(fd)
			if err != nil {
				continue
			}
			select {
			case out <- [2]uint16{uint16(h), uint16(w)}:
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(changed)
		close(done)
	}
}
