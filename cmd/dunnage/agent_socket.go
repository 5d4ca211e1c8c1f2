package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"dunnage/api"
)

// serve answers the API until ctx ends.
func serve(ctx context.Context, o agentOptions, numbers http.Handler, b api.Backend) error {
	l, err := api.Listen(o.socket, groupID(socketGroup))
	if err != nil {
		return err
	}
	s := api.NewServer(b, api.Options{Version: thisVersion(), Metrics: numbers, Log: o.log, Group: groupID(socketGroup), SecretsGroup: groupID(secretsGroup)})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	go keepSocket(ctx, o, s)
	o.log.Info("agent ready", "socket", o.socket, "state", o.stateDir, "version", version)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		o.log.Warn("tell the service manager", "error", err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	o.log.Info("agent stops; containers and rules stay")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return errors.Join(s.Shutdown(ctx), <-done)
}

// socketCheck is how often the agent looks whether its socket is still there.
const socketCheck = 2 * time.Second

// keepSocket makes the agent's socket again when it is lost: a cleaner of old files
// mustn't lock everybody out.
func keepSocket(ctx context.Context, o agentOptions, s *api.Server) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(socketCheck):
		}
		l, how, err := regainSocket(o.socket)
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			o.log.Error("make the lost socket again", "error", err)
		case l != nil:
			said = ""
			o.log.Warn(how, "socket", o.socket)
			go func() { _ = s.Serve(l) }() // the first listener's end is the server's
		}
	}
}

// regainSocket listens anew where somebody has removed the socket, or put something
// else in its place, which is moved aside. Nil: it is there.
func regainSocket(path string) (l net.Listener, how string, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		how = "somebody removed the socket; it is there again"
	case err != nil || info.Mode().Type() == fs.ModeSocket:
		return nil, "", nil //nolint:nilerr // what isn't known isn't lost
	default:
		aside := path + ".moved-" + time.Now().UTC().Format("20060102T150405")
		if err := os.Rename(path, aside); err != nil {
			return nil, "", fmt.Errorf("move aside what is in its place: %w", err)
		}
		how = "somebody put something else in the place of the socket: that is " + aside + " now, and the socket is there again"
	}
	l, err = api.Listen(path, groupID(socketGroup))
	return l, how, err
}
