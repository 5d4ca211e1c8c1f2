package main

import (
	"context"
	"fmt"
	"time"

	"dunnage/test/load"
)

// The load of the redeploy measurement. A download takes 4 s, longer than a
// swap and the drain after it.
const (
	newPerSecond  = 500
	keptClients   = 50
	downloaders   = 20
	downloadBytes = 400_000
	downloadRate  = 100_000
)

// redeployLoad is the load on a contender's port.
func redeployLoad(c contender) load.Config {
	return load.Config{
		Addr:          c.host().Host.String() + ":" + port,
		Rate:          newPerSecond,
		KeepAlive:     keptClients,
		Downloads:     downloaders,
		DownloadPath:  fmt.Sprintf("/download?bytes=%d&rate=%d", downloadBytes, downloadRate),
		DownloadBytes: downloadBytes,
	}
}

// redeployed is what came of redeploys under load, and of the same load for
// the same time without.
type redeployed struct {
	Times  int         `json:"redeploys"`
	Quiet  load.Report `json:"without"`
	Report load.Report `json:"with"`
}

// gap is what the redeploys added to the longest gap, in milliseconds.
func (r redeployed) gap() float64 { return max(0, r.Report.LongestGap-r.Quiet.LongestGap) }

// settle is between two redeploys and at both ends, so that each is seen by
// itself.
const settle = time.Second

// measureRedeploys deploys v1, then changes the version times over under load.
func measureRedeploys(ctx context.Context, w world, c contender, times int) (redeployed, error) {
	r := redeployed{Times: times}
	if err := c.redeploy(ctx, "v1"); err != nil {
		return r, err
	}
	if err := awaitAnswer(ctx, c.host(), port); err != nil {
		return r, err
	}
	begun := time.Now()
	var err error
	if r.Report, err = underLoad(ctx, w, c, func() error { return redeploys(ctx, c, times) }); err != nil {
		return r, err
	}
	took := time.Since(begun)
	r.Quiet, err = underLoad(ctx, w, c, func() error { return pause(ctx, took) })
	if err != nil {
		return r, err
	}
	return r, c.remove(ctx)
}

func redeploys(ctx context.Context, c contender, times int) error {
	for i := range times {
		if err := pause(ctx, settle); err != nil {
			return err
		}
		version := []string{"v2", "v1"}[i%2]
		if err := c.redeploy(ctx, version); err != nil {
			return err
		}
	}
	return pause(ctx, settle)
}

// underLoad runs do while the load goes on.
func underLoad(ctx context.Context, w world, c contender, do func() error) (load.Report, error) {
	t, err := c.host().StartTraffic(w.bin("build/bin/dunnage-load"), redeployLoad(c))
	if err != nil {
		return load.Report{}, err
	}
	err = do()
	rep, stopErr := t.Stop()
	if err != nil {
		return rep, err
	}
	return rep, stopErr
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
