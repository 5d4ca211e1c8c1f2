package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/urfave/cli/v2"

	"dunnage/api"
)

// dialStdioCommand is the far end of --host ssh://: it joins its standard
// streams to the agent's socket.
func (p *program) dialStdioCommand() *cli.Command {
	return &cli.Command{
		Name:        "dial-stdio",
		Hidden:      true,
		Usage:       "join standard input and output to the agent's socket",
		Description: "Run by `--host ssh://...` at the far end.\n\nExample:\n   ssh HOST dunnage dial-stdio",
		Action: func(c *cli.Context) error {
			path, ok := strings.CutPrefix(c.String("host"), "unix://")
			if !ok {
				return usagef("dial-stdio reaches a socket of its own machine only, not %s", c.String("host"))
			}
			return p.join(c.Context, path)
		},
	}
}

func (p *program) join(ctx context.Context, path string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return &api.NoAgentError{Host: "unix://" + path, Cause: err, Next: "start one there with `dunnage agent`"}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		// The end of the input is passed on; the answer may still come.
		if _, err := io.Copy(conn, p.stdin); err == nil {
			_ = conn.(*net.UnixConn).CloseWrite()
		}
	}()
	if _, err := io.Copy(p.stdout, conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("join %s: %w", path, err)
	}
	return ctx.Err()
}
