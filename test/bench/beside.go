package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"dunnage/test/load"
)

// A p99 of 2,000 requests hangs on the 20 slowest: the middle one of several
// windows is what repeats.
const (
	besideTime    = 10 * time.Second
	besideWindows = 5
)

// windows are reports without and with the project beside, in turn.
type windows struct {
	Quiet []load.Report `json:"without"`
	With  []load.Report `json:"with"`
}

// measureBeside asks a replica 200 times a second without and with a project
// beside it. Who asks stands for another machine, so what it would wait for a
// CPU of this one isn't counted, in either.
func measureBeside(ctx context.Context, w world, us *dunnage, project, manifest string) (h windows, err error) {
	if err := us.agent.LoadImages(ctx, w.bin("build/images"), "stack"); err != nil {
		return h, err
	}
	file, err := write(us.host(), project+".yaml", manifest)
	if err != nil {
		return h, err
	}
	if err := us.start(ctx); err != nil {
		return h, err
	}
	ask := func() (load.Report, error) {
		t, err := us.host().StartTraffic(w.bin("build/bin/dunnage-load"), load.Config{Addr: us.host().Host.String() + ":" + port, Realtime: true, Rate: 200, Duration: besideTime})
		if err != nil {
			return load.Report{}, err
		}
		return t.Wait()
	}
	for range besideWindows {
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
		if _, err := us.agent.Run(ctx, nil, "down", "-p", project); err != nil {
			return h, err
		}
		h.Quiet, h.With = append(h.Quiet, quiet), append(h.With, hogs)
	}
	return h, us.remove(ctx)
}

// p99 is the middle one of the windows', in milliseconds, with what failed in all.
func p99(all []load.Report) (p99 float64, failed, asked int) {
	var each []float64
	for _, w := range all {
		each = append(each, w.P99)
		failed, asked = failed+w.Failed, asked+w.Asked
	}
	slices.Sort(each)
	return each[len(each)/2], failed, asked
}

// beside is a row of a replica's p99 with a project beside it, by that without.
type beside struct {
	name, manifest, what string
	most                 float64 // times
}

func (b *bench) beside(ctx context.Context, c beside) error {
	if _, err := os.Stat(b.bin("build/images/stack.tar")); err != nil {
		b.results.Missing = append(b.results.Missing, c.what+" wasn't measured: make stack-images builds the image with a shell")
		return nil
	}
	say("%s beside a replica at 200 requests/s", c.what)
	h, err := measureBeside(ctx, b.world, b.us, c.name, c.manifest)
	if err != nil {
		return err
	}
	b.results.Raw[c.name] = h
	quiet, _, _ := p99(h.Quiet)
	with, failed, asked := p99(h.With)
	b.results.add(row{
		What: "p99 of 200 requests/s beside " + c.what, Must: fmt.Sprintf("0 failed, <= %.0f x", c.most),
		Ours: fmt.Sprintf("%d of %d failed, %.2f x (%.2f ms)", failed, asked, with/quiet, with), OK: failed == 0 && with <= c.most*quiet,
	})
	return nil
}
