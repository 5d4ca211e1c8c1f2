package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"dunnage/engine"
	"dunnage/spec"
)

// supervisor is the containerd behind the engine, as the loop's guard sees it.
type supervisor struct {
	*engine.Engine
	managed *engine.Managed // nil = somebody else's
	command []string        // that restarts it; none = nobody may
}

// Restart implements orchestrator.Supervisor.
func (s supervisor) Restart(ctx context.Context) error {
	switch {
	case s.managed != nil:
		return s.managed.Restart(ctx)
	case len(s.command) == 0:
		return fmt.Errorf("no --containerd-restart was given: %w", spec.ErrRefused)
	}
	return runBriefly(ctx, s.command)
}

// runBriefly runs a command to its end or to that of ctx, which ends what it
// started as well. The error has the end of what it wrote.
func runBriefly(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	text := out.Bytes()
	if said := strings.Join(strings.Fields(string(text[max(0, len(text)-300):])), " "); said != "" {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said)
	}
	return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
}
