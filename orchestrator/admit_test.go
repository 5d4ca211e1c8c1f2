package orchestrator

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/spec"
)

// A source that is missing and can't be made is told of before a deploy
// touches anything.
func TestBindSources(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.Mkdir(at("there"), 0o755),
		os.WriteFile(at("file"), nil, 0o644),
		os.Symlink("there", at("link")),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("round", at("round")),
	); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		source string
		create bool
		want   string // "" = nothing to say
	}{
		{"there", false, ""},
		{"link", false, ""},
		{"file", true, ""},
		{"new", false, "no such file or directory; create it, or set create_host_path: true"},
		{"new", true, ""},
		{"link/new/deep", true, ""},
		{"dangling", false, "no such file or directory"},
		{"dangling", true, at("dangling") + " is a symbolic link that leads nowhere; create what it points to, or remove it"},
		{"dangling/new/deep", true, at("dangling") + " is a symbolic link that leads nowhere"},
		{"round", true, "too many levels of symbolic links"},
		{"file/new", true, "not a directory"},
	} {
		p := spec.Project{Services: []spec.Service{{Name: "db", Container: spec.Container{
			Mounts: []spec.Mount{{Type: spec.MountBind, Source: at(tc.source), Target: "/data", CreateHost: tc.create}},
		}}}}
		err := (&Loop{}).checkSources(t.Context(), p)
		if tc.want == "" && err != nil {
			t.Errorf("%s: %v", tc.source, err)
		}
		if tc.want != "" && (!errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "service db: bind mount /data: ")) {
			t.Errorf("%s, to be made %v: got %v, want %q", tc.source, tc.create, err, tc.want)
		}
		if _, err := os.Lstat(at("new")); err == nil {
			t.Errorf("%s: the check made something", tc.source)
		}
	}
}

// TestPrivilege: what owns the host is refused with service and flag, unless
// the agent allows it.
func TestPrivilege(t *testing.T) {
	for word, change := range map[string]func(*spec.Container){
		"privileged: true": func(c *spec.Container) { c.Privileged = true },
		"pid: host":        func(c *spec.Container) { c.HostPID = true },
		"ipc: host":        func(c *spec.Container) { c.HostIPC = true },
	} {
		p := one("p", "fast")
		change(&p.Services[0].Container)
		l := &Loop{}
		err := l.checkSources(t.Context(), p)
		if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "service "+p.Services[0].Name) || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "--allow-privileged") {
			t.Errorf("%s: %v", word, err)
		}
		l.cfg.AllowPrivileged = true
		if err := l.checkSources(t.Context(), p); err != nil {
			t.Errorf("%s, allowed: %v", word, err)
		}
	}
}
