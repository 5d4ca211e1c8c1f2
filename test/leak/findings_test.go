package leak

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/test/lab"
)

// A tree is looked through whole: contents, names and targets of links, but not
// what has no place.
func TestTree(t *testing.T) {
	canaries := NewCanaries("x", "c", 9)
	for i := range canaries {
		canaries[i].Values = []string{random(40)} // as a file's name may be
	}
	value := func(i int) string { return canaries[i].Values[0] }
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a/deep/file":          value(0),
		"a/.hidden":            base64.StdEncoding.EncodeToString([]byte("x" + value(1))),
		"a/large":              strings.Repeat("x", 3*chunk-20) + hex.EncodeToString([]byte(value(2))),
		"a/" + value(3):        "",
		"a/" + value(4) + "/x": "",
		"b.log":                value(6),
		"skipped/file":         value(7),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(value(5), filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	f := NewFindings(canaries)
	f.Tree(dir, func(path string) Place {
		switch {
		case strings.HasSuffix(path, ".log"):
			return Logs
		case strings.HasSuffix(path, "skipped"):
			return ""
		}
		return Data
	})
	f.Tree(filepath.Join(dir, "nothing"), all(Data))
	if err := f.Err(); err != nil {
		t.Error(err)
	}
	if got := f.Where("x", Data); len(got) != 6 || f.Count("x", Logs) != 1 || f.Count("y", Data) != 0 {
		t.Errorf("data %q, logs %q", got, f.Where("x", Logs))
	}
	if n := f.Looked(Data); n < 3*chunk {
		t.Errorf("%d bytes", n)
	}
}

// Only what changed counts where others have files too.
func TestChangedSince(t *testing.T) {
	canaries := NewCanaries("x", "c", 2)
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old", canaries[0].Values[0])
	f := NewFindings(canaries)
	f.Tree(dir, changedSince(Temp, time.Now().Add(time.Hour)))
	if n := f.Count("x", Temp); n != 0 {
		t.Errorf("%d of files that are too old", n)
	}
	f.Tree(dir, changedSince(Temp, time.Now().Add(-time.Hour), filepath.Join(dir, "old")))
	if n := f.Count("x", Temp); n != 0 {
		t.Errorf("%d of a file that is to be skipped", n)
	}
	write("new", canaries[1].Values[0])
	f.Tree(dir, changedSince(Temp, time.Now().Add(-time.Hour)))
	if n := f.Count("x", Temp); n != 2 {
		t.Errorf("%d of 2", n)
	}
}

// Processes are seen with what they were started with; of one who asks, only the
// command line counts, and apart.
func TestWatch(t *testing.T) {
	canaries := NewCanaries("x", "c", 4)
	f := NewFindings(canaries)
	p := Watch(t.Context(), f)
	value := func(i int) string { return canaries[i].Values[0] }
	start := func(start func(*exec.Cmd) error, arg, env string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", "read x", "sh", arg)
		cmd.Env = []string{"X=" + env}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := start(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	}
	start((*exec.Cmd).Start, value(0), value(1))
	start(p.start, value(2), value(3))
	err := lab.Await(context.Background(), 10*time.Second, func() error {
		if f.Count("x", Given) == 0 || f.Count("x", Args) == 0 || f.Count("x", Environ) == 0 {
			return os.ErrNotExist
		}
		return nil
	})
	p.Stop()
	if err != nil {
		t.Error(err)
	}
	for place, want := range map[Place]string{Args: "c000", Environ: "c001", Given: "c002"} {
		if got := f.Where("x", place); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: %q, want %s", place, got, want)
		}
	}
	if !p.Saw(filepath.Base(shell(t))) {
		t.Error("the shell wasn't seen")
	}
}

// shell is what sh is here.
func shell(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("sh")
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInMemory(t *testing.T) {
	if err := InMemory("/dev/shm"); err != nil {
		t.Error(err)
	}
	if err := InMemory("/proc"); err == nil {
		t.Error("/proc passes for a tmpfs")
	}
}

// What is written into a page is what is read from it.
func TestTable(t *testing.T) {
	columns := []string{"one", "two, three"}
	count := func(c string, p Place) int { return len(c) * (1 + slices.Index(Places, p)) }
	page := []byte("before\n" + begin + "old\n" + end + "after\n")
	for range 2 {
		var err error
		if page, err = Replace(page, Table(columns, count)); err != nil {
			t.Fatal(err)
		}
	}
	if s := string(page); !strings.HasPrefix(s, "before\n"+begin+"| |") || !strings.HasSuffix(s, "|\n"+end+"after\n") || strings.Contains(s, "old") {
		t.Errorf("%s", s)
	}
	got := Columns(page)
	for _, c := range columns {
		for _, p := range Places {
			if n, ok := got[c][p]; !ok || n != count(c, p) {
				t.Errorf("%s, %s: %d, %v", c, p, n, ok)
			}
		}
	}
	if _, err := Replace([]byte("no place"), ""); err == nil {
		t.Error("a page without a place for the table took one")
	}
}
