package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/test/leak"
)

// Secrets stand where they are delivered to, and nowhere else: 100 delivered as
// files, 100 as variables, while everything is done to them that operators do.
// One value that is no secret is put into every place, and must be found there.
func TestSecretsDontLeak(t *testing.T) {
	h := newHost(t)
	archive := filepath.Join(t.TempDir(), "keeper.tar")
	if err := leak.WriteImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	d := leak.NewDunnage(h.agent, archive)
	if err := d.Run(t.Context()); err != nil {
		t.Errorf("%v; the last commands were\n%s", err, strings.Join(d.Said[max(0, len(d.Said)-8):], "\n"))
	}
	t.Log(d.Took)
	page, err := os.ReadFile("../../docs/secrets.md")
	if err != nil {
		t.Fatal(err)
	}
	table := leak.Columns(page)
	for _, place := range leak.Places {
		t.Logf("%s: %d bytes", place, d.Findings.Looked(place))
		if d.Findings.Count(leak.Planted, place) != 1 {
			t.Errorf("%s: what was put there isn't found", place)
		}
		for _, column := range []string{leak.OurFiles, leak.OurEnv} {
			want := 0
			if column == leak.OurEnv && place == leak.Own {
				want = leak.Secrets
			}
			found := d.Findings.Where(column, place)
			if len(found) != want {
				t.Errorf("%s: %s has %d secrets, not %d: %s", column, place, len(found), want, strings.Join(found[:min(len(found), 5)], "; "))
			}
			if n, ok := table[column][place]; !ok || n != want {
				t.Errorf("docs/secrets.md says %d (%v) of %s: %s, not %d; `make leakscan` writes the table", n, ok, column, place, want)
			}
		}
	}
}

// The agent can't be dumped: the kernel shows that by the owner of what /proc has
// of its memory, which is root then, whoever runs the agent. A group tells.
func TestAgentCantBeDumped(t *testing.T) {
	h := newHost(t)
	const group = 54321
	h.agent.Through = []string{"setpriv", "--regid", strconv.Itoa(group), "--clear-groups"}
	if err := h.lab.Stop(t.Context(), "agent"); err != nil {
		t.Fatal(err)
	}
	h.start()
	other := exec.Command("setpriv", "--regid", strconv.Itoa(group), "--clear-groups", "sleep", "1h")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()         //nolint:errcheck // it is killed
	defer other.Process.Kill() //nolint:errcheck // it is there
	for pid, want := range map[int]uint32{h.lab.Pid("agent"): 0, other.Process.Pid: group} {
		h.eventually(10*time.Second, "the group of a process's memory", func() error {
			fi, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
			if err == nil && fi.Sys().(*syscall.Stat_t).Gid != want {
				err = fmt.Errorf("%d, not %d", fi.Sys().(*syscall.Stat_t).Gid, want)
			}
			return err
		})
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("Gid:\t%d\t", group)) {
			t.Errorf("process %d isn't of the group %d: %v", pid, group, err)
		}
	}
}

// The scan asks for all that the API gives.
func TestLeakScanKnowsTheAPI(t *testing.T) {
	files, err := filepath.Glob("../../api/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`\{"GET (/[^"]*)"`).FindAllSubmatch(b, -1) {
			have = append(have, string(m[1]))
		}
	}
	slices.Sort(have)
	want := slices.Sorted(slices.Values(leak.Gets))
	if !slices.Equal(have, want) {
		t.Errorf("the API has %v, the scan asks for %v", have, want)
	}
}
