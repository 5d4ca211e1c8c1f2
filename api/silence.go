package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"dunnage/spec"
)

// Times of the looks at an agent that leaves a request unanswered.
const (
	quietTime = 1500 * time.Millisecond // most requests are answered before that
	lookTime  = time.Second             // what the agent gets to tell its version, which it has in memory
	lookEvery = 2 * time.Second
	// silentTime without an answer to any look ends a request that may take
	// longer when the agent works on it.
	silentTime = requestTimeout
)

// SilentError is an agent that is there and didn't answer in time. It is
// spec.ErrUnavailable.
type SilentError struct {
	Host  string
	Pid   int    // its process; 0 = unknown, or it answers and only this request takes long
	State string // the process's state as `ps -o stat` has it, one letter; empty = unknown
}

func (e *SilentError) Error() string {
	switch {
	case e.Pid == 0:
		return fmt.Sprintf("no answer from the agent at %s in time", e.Host)
	case e.Stopped():
		return fmt.Sprintf("the agent at %s doesn't answer: its process %d is stopped", e.Host, e.Pid)
	}
	return fmt.Sprintf("the agent at %s, process %d, doesn't answer", e.Host, e.Pid)
}

// Stopped reports whether somebody stopped the process.
func (e *SilentError) Stopped() bool { return e.State == "T" }

// Hint implements Hinter.
func (e *SilentError) Hint() string {
	switch {
	case e.Pid == 0:
		return "try again; the agent's log says more"
	case e.Stopped():
		return fmt.Sprintf("somebody stopped it: `kill -CONT %d` lets it go on", e.Pid)
	}
	return fmt.Sprintf("`ps -o pid,stat,args -p %d` shows why (%s); the agent's log says more", e.Pid, spec.ProcessStates)
}

// Is makes errors.Is(err, spec.ErrUnavailable) true.
func (e *SilentError) Is(target error) bool { return target == spec.ErrUnavailable }

// OnSilence has tell called, from any goroutine, when a request isn't answered
// for about two seconds and the agent answers nothing else either; once until
// it answers again. Over ssh nobody looks. Call it before the first request.
func (c *Client) OnSilence(tell func(*SilentError)) { c.tell = tell }

// watch looks at the agent beside a request until stop is called, and gives the
// request up when no look was answered for silentTime.
func (c *Client) watch(ctx context.Context, giveUp context.CancelCauseFunc) (stop func()) {
	if c.socket == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.keepLooking(ctx, giveUp) })
	return func() { cancel(); wg.Wait() }
}

func (c *Client) keepLooking(ctx context.Context, giveUp context.CancelCauseFunc) {
	since := time.Now()
	for wait := quietTime; ; wait = lookEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		silent := c.look(ctx)
		if ctx.Err() != nil {
			return // the look was cut short
		}
		before := c.silent.Swap(silent)
		switch {
		case silent == nil:
			since = time.Now()
			continue
		case before == nil && c.tell != nil:
			c.tell(silent)
		}
		if time.Since(since) >= c.patience {
			giveUp(silent)
			return
		}
	}
}

// look asks the agent for its version over a connection of its own; nil = it
// answered, or is gone, which the request itself finds out.
func (c *Client) look(ctx context.Context) *SilentError {
	conn, err := (&net.Dialer{Timeout: lookTime}).DialContext(ctx, "unix", c.socket)
	silent := &SilentError{Host: c.host}
	if errors.Is(err, syscall.EAGAIN) { // nobody takes the connections that wait
		return silent
	}
	if err != nil {
		return nil
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	p, _ := peerOf(conn) // Pid stays 0
	if silent.Pid, silent.State = p.Pid, processState(p.Pid); silent.Stopped() {
		return silent
	}
	_ = conn.SetDeadline(time.Now().Add(lookTime)) // fails when it was closed, as what follows does
	_, err = io.WriteString(conn, "GET "+Prefix+"/version HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return silent
	}
	return nil
}

// processState is the letter of /proc/PID/stat; empty when it can't be read.
func processState(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	name := bytes.LastIndex(b, []byte(") ")) // which may have any byte in it
	if err != nil || name < 0 || name+3 > len(b) {
		return ""
	}
	return string(b[name+2])
}
