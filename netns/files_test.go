package netns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunnage/spec"
)

// plainNetwork needs neither root nor iptables: files only.
func plainNetwork(t *testing.T, resolv, stub string) *Network {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{RunDir: filepath.Join(dir, "run"), Pool: pool4, Pool6: pool6, ResolvConf: filepath.Join(dir, "resolv.conf"), StubResolvConf: filepath.Join(dir, "stub.conf")}
	for path, text := range map[string]string{cfg.ResolvConf: resolv, cfg.StubResolvConf: stub} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Network{cfg: cfg}
}

func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		name, host, stub string
		v6               bool
		want             string
	}{
		{"plain", "nameserver 192.0.2.53\nsearch example.org corp.example\noptions ndots:2\n", "", true, "nameserver 192.0.2.53\nsearch example.org corp.example\noptions ndots:2\n"},
		{"loopback left out", "# local\nnameserver 127.0.0.1\nnameserver 192.0.2.53\n", "nameserver 192.0.2.99\n", true, "nameserver 192.0.2.53\n"},
		{"systemd-resolved", "nameserver 127.0.0.53\nsearch a.example\n", "nameserver 192.0.2.53\nsearch b.example\n", true, "nameserver 192.0.2.53\nsearch b.example\n"},
		{"only loopback", "nameserver ::1\nsearch a.example\n", "", true, "search a.example\n"},
		{"IPv6 server", "nameserver 2001:db8::53\n", "", true, "nameserver 2001:db8::53\n"},
		{"IPv6 server, container without", "nameserver 2001:db8::53\nnameserver 192.0.2.53\n", "", false, "nameserver 192.0.2.53\n"},
		{"link-local server", "nameserver fe80::1%eth0\nnameserver 192.0.2.53\n", "", true, "nameserver 192.0.2.53\n"},
		{"damaged", "nameserver\nnameserver nonsense\n;x\n", "", true, ""},
		{"missing", "", "", true, ""},
	} {
		got, err := plainNetwork(t, c.host, c.stub).resolvConf(c.v6)
		if err != nil || got != c.want {
			t.Errorf("%s: %q (%v), want %q", c.name, got, err, c.want)
		}
	}
}

func TestHostFiles(t *testing.T) {
	n := plainNetwork(t, "nameserver 192.0.2.53\n", "")
	e := spec.Endpoint{
		Replica: "web-app-1", Hostname: "app1",
		Addresses: []spec.EndpointAddress{member(network(1, true), 10), member(network(2, false), 10)},
		Names:     []spec.NamedAddress{{Addr: addr4(2, 2), Names: []string{"db", "database"}}, {Addr: addr6(2, 2), Names: []string{"db", "database"}}},
	}
	if err := n.WriteNames(context.Background(), e); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("names of a replica that isn't attached: %v, want ErrNotFound", err)
	}
	if err := n.writeFiles(e); err != nil {
		t.Fatal(err)
	}
	files := n.Files(e.Replica)
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.213.2.10\tapp1\nfd00:d:0:2::a\tapp1\n10.213.2.2\tdb database\nfd00:d:0:2::2\tdb database\n"
	wantFile(t, files.Hosts, want)
	wantFile(t, files.Hostname, "app1\n")
	wantFile(t, files.ResolvConf, "nameserver 192.0.2.53\n")

	// Names change in the same inode, and every reader finds what stays, whether
	// the file grows or shrinks. In what changes the kernel's copy may be half done.
	inode := inodeOf(t, files.Hosts)
	few := e
	few.Names = nil
	fewText := strings.Split(want, "10.213.2.2\t")[0]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			next := e
			if i%2 == 0 {
				next = few
			}
			if err := n.WriteNames(context.Background(), next); err != nil {
				t.Error(err)
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		b, err := os.ReadFile(files.Hosts)
		if err != nil || !strings.HasPrefix(string(b), fewText) {
			t.Errorf("a reader found %q (%v)", b, err)
			<-done // it writes there
			break
		}
	}
	wantFile(t, files.Hosts, want)
	if now := inodeOf(t, files.Hosts); now != inode {
		t.Errorf("the file has inode %d, had %d: a bind mount would show the old one", now, inode)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	// Blank lines at the end are how a file shrinks.
	if b, err := os.ReadFile(path); err != nil || strings.TrimRight(string(b), "\n") != strings.TrimRight(want, "\n") {
		t.Errorf("%s holds %q (%v), want %q", path, b, err, want)
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestRefusedEndpoints(t *testing.T) {
	n := plainNetwork(t, "", "")
	good := []spec.EndpointAddress{member(network(1, false), 10)}
	outside := member(network(1, false), 10)
	outside.Addr = netip.MustParseAddr("192.0.2.7")
	for name, e := range map[string]spec.Endpoint{
		"no name":      {Addresses: good},
		"path":         {Replica: "../../etc", Addresses: good},
		"dots":         {Replica: "..", Addresses: good},
		"no address":   {Replica: "r"},
		"address":      {Replica: "r", Network: spec.NetworkHost, Addresses: good},
		"joins":        {Replica: "r", Network: spec.NetworkService},
		"outside pool": {Replica: "r", Addresses: []spec.EndpointAddress{outside}},
	} {
		if err := n.Attach(context.Background(), e); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
	}
	for _, cfg := range []Config{
		{RunDir: "relative", Pool: pool4}, {RunDir: "/x", Pool: pool6}, {RunDir: "/x", Pool: netip.MustParsePrefix("10.0.0.0/24")},
		{RunDir: "/x", Pool: pool4, Pool6: netip.MustParsePrefix("fd00::/64")}, {RunDir: "/x", Pool: pool4, Iptables: "pf"},
	} {
		if _, err := New(cfg); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("New(%+v): %v, want ErrRefused", cfg, err)
		}
	}
}

// What would block whoever opens it, in the place of the former settings, is an error.
func TestSettingsOfAFIFO(t *testing.T) {
	for _, suffix := range []string{"", ".new"} {
		n := plainNetwork(t, "", "")
		path := n.settingsFile() + suffix
		if err := errors.Join(os.MkdirAll(n.cfg.RunDir, 0o700), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- n.rememberSettings(nil) }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), path+" is no regular file: move it away") {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it hangs", path)
		}
	}
}

// What is in the place of a replica's directory leads nowhere else.
func TestFilesFollowNoLink(t *testing.T) {
	theirs := t.TempDir()
	hosts := filepath.Join(theirs, "hosts")
	n := &Network{cfg: Config{RunDir: t.TempDir()}}
	for _, err := range []error{os.WriteFile(hosts, []byte("x"), 0o600), os.MkdirAll(filepath.Dir(n.dir("web-1")), 0o755), os.Symlink(theirs, n.dir("web-1"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := n.writeFiles(spec.Endpoint{Replica: "web-1"}); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("%v, want an error that says what to do", err)
	}
	if b, err := os.ReadFile(hosts); err != nil || string(b) != "x" {
		t.Errorf("others' file: %q, %v", b, err)
	}
}
