package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/test/lab"
)

// startLimit is far more than anybody takes.
const startLimit = 60 * time.Second

// startTimes measures, for each contender in turn and runs times over, how
// long it takes from the command until it has returned and the published port
// answers a client. Taking turns spreads the machine's moods over all of them.
func startTimes(ctx context.Context, all []contender, runs int) (map[string][]time.Duration, error) {
	times := map[string][]time.Duration{}
	for i := range runs + 1 {
		for _, c := range all {
			d, err := timeStart(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name(), err)
			}
			if i > 0 { // the first one warms caches up
				times[c.name()] = append(times[c.name()], d)
			}
		}
	}
	return times, nil
}

// timeStart asks only after the command has returned, as its user would. To ask
// while it runs would disturb those who set a bridge and its rules up before the
// container: the kernel looks for a neighbour that isn't there yet, and repeats
// an unanswered ARP request only after a second. That is what traffic meets in a
// redeploy, and is measured there.
func timeStart(ctx context.Context, c contender) (time.Duration, error) {
	begun := time.Now()
	if err := c.start(ctx); err != nil {
		return 0, err
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took, c.remove(ctx)
}

// awaitAnswer asks from the lab's client until an answer comes. The thread that
// enters the namespace never leaves it: it ends with its goroutine.
func awaitAnswer(ctx context.Context, l *lab.Lab, port string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		answered <- askFromClient(ctx, l, port)
	}()
	return <-answered
}

func askFromClient(ctx context.Context, l *lab.Lab, port string) error {
	ns, err := unix.Open(l.ClientPath(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	for ctx.Err() == nil {
		if err = askOnce(l.Host, port); err == nil {
			return nil
		}
		time.Sleep(500 * time.Microsecond) // the resolution of the measurement
	}
	return fmt.Errorf("no answer from %s: %w", net.JoinHostPort(l.Host.String(), port), err)
}

// The limits are short: a SYN that is dropped while somebody sets rules up is
// sent again only after a second, by us or by a proxy that has accepted us, and
// that would be what is measured.
const (
	connectLimit = 20 * time.Millisecond
	answerLimit  = 100 * time.Millisecond
)

func askOnce(host netip.Addr, port string) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host.String(), port), connectLimit)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	head := make([]byte, len("HTTP/1.0 200"))
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	if string(head[9:]) != fmt.Sprint(http.StatusOK) {
		return fmt.Errorf("answer %q", head)
	}
	return nil
}

func median[T int | float64 | time.Duration](v []T) T {
	if len(v) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(v))[len(v)/2]
}

// pairedRatio is the median of a[i]/b[i]: runs that stood side by side in time.
func pairedRatio(a, b []time.Duration) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, float64(a[i])/float64(b[i]))
	}
	return median(ratios)
}
