package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"dunnage/engine"
	"dunnage/metrics"
	"dunnage/netns"
	"dunnage/orchestrator"
	"dunnage/spec"
)

// storePath is the store's file.
func (o agentOptions) storePath() string { return filepath.Join(o.stateDir, "dunnage.db") }

// metricsHandler answers with the agent's metrics.
func metricsHandler(o agentOptions, loop *orchestrator.Loop, w watchers, network *netns.Network, eng *engine.Engine) (http.Handler, error) {
	return metrics.Handler(metrics.Sources{
		Version: version,
		Status:  loop.Status, Counted: loop.Counted, Latency: loop.Latency, Usage: loop.Usage, Disk: loop.DiskReport, Reach: loop.Reach,
		Visits: w.visits.Counts, Probes: w.health.Counts, Calls: eng.Calls, Conntrack: network.ConntrackFill,
		StoreSize: func() (int64, error) {
			info, err := os.Stat(o.storePath())
			if err != nil {
				return 0, fmt.Errorf("ask for the store's size: %w", err)
			}
			return info.Size(), nil
		},
	}, o.log)
}

// serveMetrics serves them on the loopback address too that the host's owner has
// set; nil = none is set.
func serveMetrics(o agentOptions, h http.Handler) *metrics.Server {
	if !o.host.Metrics.IsValid() {
		return nil
	}
	return metrics.NewServer(o.host.Metrics, h, o.log)
}

// metrics says whether they can be had where the host's owner wants them.
func (x examiner) metrics(context.Context) []spec.Finding {
	if x.numbers == nil {
		return nil
	}
	if p := x.numbers.Problem(); p != "" {
		return []spec.Finding{warned("`ss -ltnp` shows who has the port", "%s", p)}
	}
	return fine("metrics are served on %s", x.options.host.Metrics)
}
