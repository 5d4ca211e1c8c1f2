package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"dunnage/test/load"
)

// hogsFile is one container that takes all it can get of memory, CPU,
// processes and files, within limits of the usual kind.
const hogsFile = `name: hogs
services:
  hog:
    image: example.org/stack-nginx:1
    command:
      - bash
      - -c
      - |
        exec 2>/dev/null
        (while :; do tail /dev/zero; done) &
        (while :; do :; done) & (while :; do :; done) &
        (i=10; while :; do eval "exec $$i</dev/null" && i=$$((i+1)); done) &
        (bomb() { bomb | bomb & }; while :; do bomb; done) &
        sleep 100000
    stop_grace_period: 1s
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 100}}}
    ulimits: {nofile: 1024}
    x-dunnage: {drain: 0s}
`

// A p99 of 2,000 requests hangs on the 20 slowest, and two cores also carry who
// asks: the middle one of several windows is what repeats.
const (
	hogTime    = 10 * time.Second
	hogWindows = 5
)

// hogged are windows in turn.
type hogged struct {
	Quiet []load.Report `json:"without"`
	Hogs  []load.Report `json:"with"`
}

// measureHogs asks a replica 200 times a second without and with the hogs
// beside it.
func measureHogs(ctx context.Context, w world, us *dunnage) (h hogged, err error) {
	if err := us.agent.LoadImages(ctx, w.bin("build/images"), "stack"); err != nil {
		return h, err
	}
	file, err := write(us.host(), "hogs.yaml", hogsFile)
	if err != nil {
		return h, err
	}
	if err := us.start(ctx); err != nil {
		return h, err
	}
	ask := func() (load.Report, error) {
		t, err := us.host().StartTraffic(w.bin("build/bin/dunnage-load"), load.Config{Addr: us.host().Host.String() + ":" + port, Rate: 200, Duration: hogTime})
		if err != nil {
			return load.Report{}, err
		}
		return t.Wait()
	}
	for range hogWindows {
		quiet, err := ask()
		if err != nil {
			return h, err
		}
		if _, err := us.agent.Run(ctx, nil, "deploy", "-f", file); err != nil {
			return h, err
		}
		hogs, err := ask()
		if err != nil {
			return h, err
		}
		if _, err := us.agent.Run(ctx, nil, "down", "-p", "hogs"); err != nil {
			return h, err
		}
		h.Quiet, h.Hogs = append(h.Quiet, quiet), append(h.Hogs, hogs)
	}
	return h, us.remove(ctx)
}

// p99 is the middle one of the windows', in milliseconds, with what failed in all.
func p99(windows []load.Report) (p99 float64, failed, asked int) {
	var all []float64
	for _, w := range windows {
		all = append(all, w.P99)
		failed, asked = failed+w.Failed, asked+w.Asked
	}
	slices.Sort(all)
	return all[len(all)/2], failed, asked
}

func (b *bench) hogs(ctx context.Context) error {
	if _, err := os.Stat(b.bin("build/images/stack.tar")); err != nil {
		b.results.Missing = append(b.results.Missing, "hogs weren't measured: make stack-images builds the image with a shell")
		return nil
	}
	say("a hog of memory, CPU, processes and files beside a replica at 200 requests/s")
	h, err := measureHogs(ctx, b.world, b.us)
	if err != nil {
		return err
	}
	b.results.Raw["hogs"] = h
	quiet, _, _ := p99(h.Quiet)
	hogs, failed, asked := p99(h.Hogs)
	b.results.add(row{
		What: "p99 of 200 requests/s beside a hog of everything", Must: "0 failed, <= 3 x",
		Ours: fmt.Sprintf("%d of %d failed, %.2f x (%.2f ms)", failed, asked, hogs/quiet, hogs), OK: failed == 0 && hogs <= 3*quiet,
	})
	return nil
}
