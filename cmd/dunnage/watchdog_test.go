package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// The service manager's watchdog is fed while the loop comes round. One that
// hangs is told of once, with what it does, and ended later.
func TestWatchdog(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	round := now // when the loop came round last
	var fed, dumps, exits int
	var told []string
	w := &watchdog{
		silence: func() time.Duration { return now.Sub(round) },
		feed:    func() { fed++ },
		dump:    func() string { dumps++; return "it is in the file" },
		tell:    func(text string) { told = append(told, text) },
		exit:    func(string) { exits++ },
	}
	pass := func(d time.Duration, works bool) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(watchEvery)
			if works {
				round = now
			}
			w.look(now)
		}
	}
	is := func(wantFed, wantDumps, wantExits int) {
		t.Helper()
		if fed != wantFed || dumps != wantDumps || exits != wantExits || len(told) != dumps {
			t.Errorf("fed %d times, %d dumps, ended %d times, told %q", fed, dumps, exits, told)
		}
	}
	pass(time.Minute, true)
	is(12, 0, 0)
	pass(dumpAfter-watchEvery, false)
	is(23, 0, 0)
	pass(watchEvery, false)
	is(23, 1, 0)
	if !strings.Contains(told[0], "hasn't come round for 1m0s") || !strings.HasSuffix(told[0], "it is in the file") {
		t.Errorf("told %q", told[0])
	}
	pass(watchEvery, true) // it goes on
	is(24, 1, 0)
	pass(exitAfter-watchEvery, false)
	is(35, 2, 0)
	pass(watchEvery, false)
	is(35, 2, 1)

	now = now.Add(time.Hour) // all of the process was stopped
	w.look(now)
	is(36, 2, 1)
	pass(dumpAfter, false)
	is(47, 3, 1)
}

func TestDumps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", dumpDir)
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range keptDumps + 3 {
		if _, err := writeDump(dir, []byte("goroutine 1"), began.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != keptDumps || entries[0].Name() != "goroutines-20260101T000300.txt" {
		t.Errorf("%v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, entries[0].Name()))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	const clear = "hunter2-is-no-secret"
	secret := spec.NewSecretValue([]byte(clear))
	var log strings.Builder
	hold := make(chan struct{})
	defer close(hold)
	go func(v spec.SecretValue) { <-hold; _ = v }(secret)
	text := dumpWithin(10*time.Second, dir, slog.New(slog.NewTextHandler(&log, nil)))
	path, ok := strings.CutPrefix(text, "what it does is in ")
	dump, err := os.ReadFile(path)
	if !ok || err != nil || !strings.Contains(string(dump), "TestDumps") || !strings.Contains(log.String(), "TestDumps") {
		t.Errorf("%s: %v: %s", text, err, dump)
	}
	if strings.Contains(string(dump)+log.String(), clear) {
		t.Error("it has a secret's value")
	}

	if err := os.WriteFile(dir+"2", nil, 0o600); err != nil { // in the way
		t.Fatal(err)
	}
	if text := dumpWithin(10*time.Second, dir+"2", slog.New(slog.DiscardHandler)); !strings.HasPrefix(text, "what it does is in the log, since ") {
		t.Error(text)
	}
}

// A restart that hangs ends in time, with what it started; one that fails says why.
func TestRestartCommand(t *testing.T) {
	ctx := t.Context()
	if err := (supervisor{}).Restart(ctx); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("nobody has said how: %v", err)
	}
	run := func(script string) error {
		return supervisor{command: []string{"sh", "-c", script}}.Restart(ctx)
	}
	if err := run("true"); err != nil {
		t.Error(err)
	}
	if err := run("echo Job failed >&2; exit 1"); err == nil || !strings.HasSuffix(err.Error(), "exit status 1: Job failed") {
		t.Errorf("%v", err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := run("sleep 60 & wait"); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
