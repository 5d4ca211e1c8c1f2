package engine

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/spec"
)

// TestAllowed runs one process for each key that changes what a container
// may do, beside one without it.
func TestAllowed(t *testing.T) {
	b := newBench(t)
	image := b.app()
	n := 0
	run := func(change func(*spec.Container), args ...string) string {
		t.Helper()
		n++
		r := request(image, n, args...)
		change(&r.Container)
		return b.output(r)
	}
	plain := func(*spec.Container) {}
	for _, c := range []struct {
		name    string
		change  func(*spec.Container)
		args    []string
		want    string // in the output
		without string // in the output of the same command without the change; empty = anything else
	}{
		{"sysctl", func(c *spec.Container) { c.Sysctls = map[string]string{"net.ipv4.ip_default_ttl": "77"} },
			[]string{"cat", "/proc/sys/net/ipv4/ip_default_ttl"}, "77\n", ""},
		{"IPC sysctl", func(c *spec.Container) { c.Sysctls = map[string]string{"kernel.msgmax": "4321"} },
			[]string{"cat", "/proc/sys/kernel/msgmax"}, "4321\n", ""},
		{"domainname", func(c *spec.Container) { c.DomainName = "example.org" },
			[]string{"cat", "/proc/sys/kernel/domainname"}, "example.org\n", ""},
		{"OOM score", func(c *spec.Container) { c.OOMScoreAdj = 321 },
			[]string{"cat", "/proc/self/oom_score_adj"}, "321\n", "0\n"},
		{"groups", func(c *spec.Container) { c.GroupAdd = []string{"extra", "4711"} },
			[]string{"cat", "/proc/self/status"}, "Groups:\t2000 4711", "Groups:\t"},
		{"new privileges", func(c *spec.Container) { c.NewPrivs = true },
			[]string{"cat", "/proc/self/status"}, "NoNewPrivs:\t0", "NoNewPrivs:\t1"},
		{"no seccomp", func(c *spec.Container) { c.Seccomp = unconfined },
			[]string{"cat", "/proc/self/status"}, "Seccomp:\t0", "Seccomp:\t2"},
		{"own seccomp", func(c *spec.Container) {
			c.Seccomp = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chroot"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`
			c.CapAdd = []string{"CAP_SYS_CHROOT"}
		}, []string{"try", "chroot"}, "function not implemented", "operation not permitted"},
		{"device", func(c *spec.Container) {
			c.Devices = []spec.Device{{Source: "/dev/fuse", Target: "/dev/other", Access: "rw"}}
		}, []string{"ls", "/dev/other"}, "Dcrw", "no such file"},
		{"device rule", func(c *spec.Container) {
			c.DeviceRules = []string{"c 10:229 rwm"}
			c.Privileged = false
		}, []string{"cat", "/sys/fs/cgroup/devices/devices.list"}, "c 10:229 rwm", ""},
		{"host PID", func(c *spec.Container) { c.HostPID = true },
			[]string{"ls", "/proc/" + pidText()}, "/proc/" + pidText(), "no such file"},
		{"privileged capabilities", func(c *spec.Container) { c.Privileged = true },
			[]string{"try", "mknod"}, "", "operation not permitted"},
		{"privileged /proc", func(c *spec.Container) { c.Privileged = true },
			[]string{"cat", "/proc/self/mounts"}, "sysfs /sys sysfs rw", "sysfs /sys sysfs ro"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if b.cgroup.v2 && c.name == "device rule" {
				t.Skip("cgroup v2 has no list of device rules: they are a program in the kernel")
			}
			with, without := run(c.change, c.args...), run(plain, c.args...)
			if !strings.Contains(with, c.want) {
				t.Errorf("with it:\n%s\nwant %q", with, c.want)
			}
			if with == without || !strings.Contains(without, c.without) {
				t.Errorf("without it:\n%s\nwant %q", without, c.without)
			}
		})
	}
}

// pidText is the test's own process on the host.
func pidText() string {
	name, err := os.Readlink("/proc/self")
	if err != nil {
		return "?"
	}
	return name
}

// TestUnusable: what this host can't give is refused at create.
func TestUnusable(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, change := range []func(*spec.CreateRequest){
		func(r *spec.CreateRequest) {
			r.Container.Devices = []spec.Device{{Source: "/dev/none", Target: "/dev/none", Access: "r"}}
		},
		func(r *spec.CreateRequest) { r.Container.DeviceRules = []string{"c 1 rwm"} },
		func(r *spec.CreateRequest) { r.Container.Seccomp = `{"defaultAction":7}` },
		func(r *spec.CreateRequest) { r.Container.GroupAdd = []string{"nobody-knows"} },
		func(r *spec.CreateRequest) {
			r.Limits.BlockDevices = []spec.BlockLimit{{Path: "/dev/null", ReadBps: 1}}
		},
	} {
		r := request(image, n+1, "env")
		change(&r)
		if err := b.Create(b.ctx, r); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// TestTerminal: with tty the three streams are a terminal, whose input nobody
// writes and which doesn't end; its output is logged.
func TestTerminal(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "tty")
	r.Container.TTY, r.Container.StdinOpen = true, true
	b.run(r)
	b.awaitReady(r)
	if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
		t.Errorf("%+v", i)
	}
	if err := b.Remove(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	log := strings.ReplaceAll(b.log(r.ReplicaKey), "\r", "")
	if log != "stdin true\nstdout true\nstderr true\nan error\nready\n" {
		t.Errorf("log:\n%q", log)
	}
}

// TestOpenInput: without a terminal, stdin_open decides whether the standard
// input has ended when the program begins to read it.
func TestOpenInput(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, c := range []struct {
		open, init bool
		user       string
	}{{open: true}, {open: true, init: true, user: "1000:1000"}, {}} {
		r := request(image, n+1, "tty")
		r.Container.StdinOpen, r.Container.Init, r.Container.User = c.open, c.init, c.user
		b.run(r)
		b.awaitReady(r)
		if !c.open {
			b.awaitPhase(r.ID, spec.PhaseExited)
			continue
		}
		// Reading on at its own pace, it would have ended as the last one does:
		// what it reads from is a pipe that is open for writing too.
		proc := fmt.Sprintf("/proc/%d", slices.Max(b.cgroup.pids(r.ID)))
		to, err := os.Readlink(proc + "/fd/0")
		if err != nil || !strings.HasPrefix(to, "pipe:") {
			t.Errorf("%+v: standard input is %q, %v", c, to, err)
		}
		if info, err := os.ReadFile(proc + "/fdinfo/0"); err != nil || !regexp.MustCompile(`(?m)^flags:\s[0-7]*2$`).Match(info) {
			t.Errorf("%+v: %q, %v", c, info, err)
		}
		if i := b.instance(r.ID); i.Phase != spec.PhaseRunning {
			t.Errorf("%+v: %+v", c, i)
		}
	}
}

// TestFiles: a config is a read-only file with owner and mode, and goes with
// the replica.
func TestFiles(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, c := range []struct {
		user string
		args []string
		want string
	}{
		{"1000", []string{"cat", "/etc/app/app.conf"}, "level = warn\n"},
		{"1000", []string{"ls", "/etc/app/app.conf"}, "-r--r----- 1000 2000 /etc/app/app.conf\n"},
		{"0", []string{"write", "/app.conf", "x"}, "read-only file system"},
	} {
		r := request(image, n+1, c.args...)
		r.Container.User = c.user
		r.Container.ReadOnly = true
		r.Container.Files = []spec.File{
			{Target: "/app.conf", Content: []byte("top\n"), Mode: 0o444},
			{Target: "/etc/app/app.conf", Content: []byte("level = warn\n"), UID: new(uint32(1000)), GID: new(uint32(2000)), Mode: 0o440},
		}
		if got := b.output(r); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.args, got, c.want)
		}
		if _, err := os.Stat(b.cfg.filesDir(r.ID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	}
}

// TestSeccompArchitectures: programs of the other word size run under the
// filter too, and x32 isn't compiled at each start.
func TestSeccompArchitectures(t *testing.T) {
	p, err := seccompProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" {
		return
	}
	if want := []specs.Arch{specs.ArchX86_64, specs.ArchX86}; !slices.Equal(p.Architectures, want) {
		t.Errorf("the default filter is for %v, want %v", p.Architectures, want)
	}
}
