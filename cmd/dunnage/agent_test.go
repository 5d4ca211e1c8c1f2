package main

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dunnage/spec"
)

// TestNamespaceFlag: a namespace that containerd refuses is refused at the start.
func TestNamespaceFlag(t *testing.T) {
	for name, ok := range map[string]bool{
		"dunnage": true, "dunnage-1f": true, "a.b_c-d": true, strings.Repeat("n", longestNamespace): true,
		"../x": false, "a b": false, "-x": false, "a..b": false, "x/": false, strings.Repeat("n", longestNamespace+1): false,
	} {
		app := newProgram().app()
		err := app.Run([]string{"dunnage", "agent", "--namespace", name, "--log-format", "none of them"})
		var usage *usageError
		if !errors.As(err, &usage) || strings.Contains(usage.message, "--namespace") == ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestHostConfigRefuses: an error in the agent's own file speaks of that, not of
// a manifest.
func TestHostConfigRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("- disk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	p := program{stderr: &out}
	_, err := hostConfig(path)
	code := p.finish(t.Context(), err)
	want := "dunnage: the host's file has a problem; the agent doesn't start with it\n" +
		path + ":1:1: refused: the file must be a mapping, but this is a list. Start with a key, such as `disk:` in the host's file\n"
	if code != exitError || out.String() != want {
		t.Errorf("exit code %d:\n%swant\n%s", code, out.String(), want)
	}
	if _, err := hostConfig(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named file that isn't there: %v", err)
	}
}

// TestUsesPools: only projects with a network in a pool keep it in use.
func TestUsesPools(t *testing.T) {
	pool, pool6 := netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("fd64:756e:6e61::/48")
	with := func(n spec.NetworkAddressing) spec.State {
		return spec.State{Projects: []spec.ProjectRecord{{Name: "shop", Networks: []spec.NetworkAddressing{n}}}}
	}
	for name, tc := range map[string]struct {
		was            spec.State
		uses, usesIPv6 bool
	}{
		"an empty store": {},
		"IPv4 alone":     {with(spec.NetworkAddressing{Subnet: netip.MustParsePrefix("10.208.16.0/20")}), true, false},
		"both":           {with(spec.NetworkAddressing{Subnet: netip.MustParsePrefix("10.208.16.0/20"), Subnet6: netip.MustParsePrefix("fd64:756e:6e61:1::/64")}), true, true},
		"another pool":   {with(spec.NetworkAddressing{Subnet: netip.MustParsePrefix("10.9.0.0/20")}), false, false},
	} {
		if got := usesPools(tc.was, pool, pool6); got != tc.uses {
			t.Errorf("%s: in use is %v", name, got)
		}
		if got := usesIPv6(tc.was); got != tc.usesIPv6 {
			t.Errorf("%s: uses IPv6 is %v", name, got)
		}
	}
}

// TestClaimRunDir: a second agent doesn't get the run directory, the next one does,
// and only one that was made and stayed empty goes.
func TestClaimRunDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	release, err := claimRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claimRunDir(dir); err == nil || !strings.Contains(err.Error(), "run directory "+dir+" is in use: another agent runs with it") {
		t.Errorf("a second time: %v", err)
	}
	release()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left empty: %v", err)
	}
	for _, name := range []string{"agent.sock", ""} { // one that is there stays, empty or not
		if release, err = claimRunDir(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		release()
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "agent.sock")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSocketIsRegained: whatever takes the place of the agent's socket is moved aside,
// and loses nothing by that.
func TestSocketIsRegained(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"nothing":   func(string) error { return nil },
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"link":      func(path string) error { return os.Symlink("/nonexist", path) },
	} {
		path := filepath.Join(t.TempDir(), "agent.sock")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		l, how, err := regainSocket(path)
		if err != nil || how == "" {
			t.Errorf("%s: %q, %v", name, how, err)
			continue
		}
		defer l.Close()
		if conn, err := net.Dial("unix", path); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			conn.Close()
		}
		if aside, _ := filepath.Glob(path + ".moved-*"); len(aside) != 1 && name != "nothing" || len(aside) > 0 && !strings.Contains(how, aside[0]) {
			t.Errorf("%s: aside are %v, told is %s", name, aside, how)
		}
		if again, _, err := regainSocket(path); again != nil || err != nil {
			t.Errorf("%s: a socket that is there: %v, %v", name, again, err)
		}
	}
}
