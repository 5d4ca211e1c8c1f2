package metrics

import (
	"os"
	"regexp"
	"testing"
)

// undrawn are the metrics without a panel of their own, with the reason.
var undrawn = map[string]string{
	"dunnage_disk_used_inodes":        "the file systems' inodes have a panel; df says whose they are",
	"dunnage_replica_cpu_limit_cores": "waiting for the limit has a panel",
	"dunnage_replica_pids_limit":      "processes have a panel",
}

// TestDashboardShowsAll: every metric is asked for by the dashboard, or it is
// written down why not.
func TestDashboardShowsAll(t *testing.T) {
	board, err := os.ReadFile("../packaging/grafana/dunnage.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		drawn := regexp.MustCompile(`\b` + f.name + `(_bucket|_sum|_count)?\b`).Match(board)
		if _, excused := undrawn[f.name]; drawn == excused {
			t.Errorf("%s: asked for by the dashboard: %t, excused: %t", f.name, drawn, excused)
		}
	}
}
