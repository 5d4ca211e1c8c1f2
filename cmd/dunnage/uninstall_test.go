package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestRemoveRunFiles: what is ours goes, what somebody else put there stays.
func TestRemoveRunFiles(t *testing.T) {
	for _, foreign := range []string{"", "notes", "containerd/shim.log"} {
		run := filepath.Join(t.TempDir(), "run")
		for _, dir := range []string{"netns", "secrets", "fifo", "containerd/state/io.containerd.runtime.v2.task/dunnage", "containerd/state/io.containerd.grpc.v1.cri"} {
			if err := os.MkdirAll(filepath.Join(run, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range []string{headFile, "agent.sock", "containerd/config.toml", foreign} {
			if file == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(run, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // again, with nothing left to do
			if err := removeRunFiles(run, filepath.Join(run, "agent.sock"), true); err != nil {
				t.Fatal(err)
			}
		}
		var left []string
		err := filepath.WalkDir(run, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				left = append(left, strings.TrimPrefix(path, run+"/"))
			}
			return err
		})
		switch {
		case foreign == "" && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("left %s: %v %v", run, left, err)
		case foreign != "" && !slices.Equal(left, []string{foreign}):
			t.Errorf("left %v, want %s", left, foreign)
		}
		if _, err := os.Stat(filepath.Join(run, "secrets")); err == nil {
			t.Error("left an empty directory")
		}
	}
}

func TestStays(t *testing.T) {
	const all = "/s stays: volumes, logs, images, history, sealed secrets"
	for source, want := range map[string]string{
		"file:/s/secrets.key": all + " and their key; delete it if nobody wants them any more",
		"file:/mnt/k":         all + "; delete it if nobody wants them any more\n/mnt/k stays: the key of the secrets",
		"passphrase":          all + "; delete it if nobody wants them any more",
	} {
		if got := stays(agentOptions{stateDir: "/s", keySource: source}); got != want {
			t.Errorf("%s: %s", source, got)
		}
	}
}

// TestRemoveRuncRoot: only the namespace's own directory goes, and only an empty one.
func TestRemoveRuncRoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"ours", "theirs", "busy/container"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, namespace := range []string{"ours", "busy", "never"} {
		if err := removeRuncRoot(root, namespace); err != nil {
			t.Error(err)
		}
	}
	for dir, there := range map[string]bool{"ours": false, "theirs": true, "busy/container": true} {
		if _, err := os.Stat(filepath.Join(root, dir)); (err == nil) != there {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
