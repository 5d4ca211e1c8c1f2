package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveCgroups: directories stand for groups; both refuse to go while
// something is in them.
func TestRemoveCgroups(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"dunnage", "memory/dunnage", "pids/dunnage/replica", "cpu,cpuacct/other"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("memory", filepath.Join(root, "alias")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := removeCgroups(root, "dunnage", &out); err != nil {
		t.Fatal(err)
	}
	want := "left control group " + root + "/pids/dunnage: it isn't empty\nremoved 2 control groups dunnage\n"
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
	for dir, there := range map[string]bool{"dunnage": false, "memory/dunnage": false, "memory": true, "pids/dunnage/replica": true, "cpu,cpuacct/other": true} {
		if _, err := os.Stat(filepath.Join(root, dir)); (err == nil) != there {
			t.Errorf("%s: %v", dir, err)
		}
	}
	out.Reset()
	if err := removeCgroups(root, "nothing", &out); err != nil || out.Len() > 0 {
		t.Errorf("nothing there: %v %s", err, out.String())
	}
}
