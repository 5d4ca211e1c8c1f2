package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dunnage/test/lab"
)

// The connections of the balance row.
const (
	shared  = 30_000
	askers  = 8
	maxSkew = 0.015
)

// shares is how many connections each replica answered.
func shares(l *lab.Lab, n int) (map[string]int, error) {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		all  = map[string]int{}
		errs = make(chan error, askers)
	)
	for range askers {
		wg.Go(func() {
			got, err := whoAnswers(l, n/askers)
			if err != nil {
				errs <- err
			}
			mu.Lock()
			defer mu.Unlock()
			for name, k := range got {
				all[name] += k
			}
		})
	}
	wg.Wait()
	close(errs)
	return all, <-errs
}

// whoAnswers asks n times from the client's namespace, each time on a new
// connection. The thread that enters never leaves: it ends with its goroutine.
func whoAnswers(l *lab.Lab, n int) (map[string]int, error) {
	runtime.LockOSThread()
	ns, err := unix.Open(l.ClientPath(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter namespace: %w", err)
	}
	got := map[string]int{}
	for range n {
		name, err := askName(net.JoinHostPort(l.Host.String(), port))
		if err != nil {
			return got, err
		}
		got[name]++
	}
	return got, nil
}

// askName returns the body's first words: "hello from web-2".
func askName(to string) (string, error) {
	conn, err := net.DialTimeout("tcp", to, startLimit)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	for s := bufio.NewScanner(conn); s.Scan(); {
		if who, _, ok := strings.Cut(s.Text(), ","); ok && strings.HasPrefix(who, "hello") {
			return who, nil
		}
	}
	return "", fmt.Errorf("an answer without a name from %s", to)
}

func (b *bench) balance(ctx context.Context) error {
	say("%d connections to 3 replicas", shared)
	if err := b.us.redeploy(ctx, "v1"); err != nil {
		return err
	}
	got, err := shares(b.us.host(), shared)
	if err != nil {
		return err
	}
	b.results.Raw["balance"] = got
	ok, text, total := len(got) == 3, []string{}, 0
	for _, n := range got {
		total += n
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		part := float64(got[name]) / float64(total)
		ok = ok && part >= 1.0/3-maxSkew && part <= 1.0/3+maxSkew
		text = append(text, fmt.Sprintf("%.1f", 100*part))
	}
	b.results.add(row{What: fmt.Sprintf("shares of %d connections over 3 replicas", shared), Must: "33.3 % +- 1.5", Ours: strings.Join(text, " ") + " %", OK: ok})
	return b.us.remove(ctx)
}
