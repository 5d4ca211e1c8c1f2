package lab

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunnage/internal/testenv"
)

func TestUpAndDown(t *testing.T) {
	testenv.Root(t)
	ctx := context.Background()
	l := New("dunnage-labtest", filepath.Join(t.TempDir(), "lab"), 99)
	t.Cleanup(func() {
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // the second Up finds what the first one made
		if err := l.Up(ctx); err != nil {
			t.Fatal(err)
		}
		if err := l.Start("sleeper", nil, "sleep", "600"); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := Output(ctx, l.OnClient("ip", "route", "get", l.Host.String())...); err != nil || !strings.Contains(out, "dev wire") {
		t.Errorf("the client has no way to the host: %s, %v", out, err)
	}
	pid := l.Pid("sleeper")
	if pid == 0 {
		t.Fatal("the daemon isn't there")
	}
	if err := l.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(pid); err == nil {
		t.Error("the daemon is still there")
	}
	for _, path := range []string{l.Dir, nsPath(l.hostNS()), nsPath(l.clientNS())} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

// A recorded pid that belongs to another process by now must be left alone.
func TestForeignPidIsLeftAlone(t *testing.T) {
	l := New("dunnage-labtest", t.TempDir(), 98)
	if err := os.MkdirAll(l.pids(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.pids(), "x"), []byte("1 999999999999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid := l.Pid("x"); pid != 0 {
		t.Errorf("pid %d taken for ours", pid)
	}
}

func TestAddressesAreForBenchmarks(t *testing.T) {
	_, bench, err := net.ParseCIDR("198.18.0.0/15")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint8{0, 99} {
		if l := New("x", "/x", n); !bench.Contains(l.Host.AsSlice()) || !bench.Contains(l.Client.AsSlice()) {
			t.Errorf("%v, %v", l.Host, l.Client)
		}
	}
}
