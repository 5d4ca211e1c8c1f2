package engine

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func TestArgv(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}}
	for _, c := range []struct {
		name                string
		entrypoint, command []string
		want                []string
	}{
		{"neither", nil, nil, []string{"/entry", "cmd"}},
		{"command", nil, []string{"x"}, []string{"/entry", "x"}},
		{"command cleared", nil, []string{}, []string{"/entry"}},
		{"entrypoint clears the image's command", []string{"/other"}, nil, []string{"/other"}},
		{"both", []string{"/other"}, []string{"x"}, []string{"/other", "x"}},
		{"entrypoint cleared", []string{}, []string{"x"}, []string{"x"}},
	} {
		got, err := argv(spec.Container{Entrypoint: c.entrypoint, Command: c.command}, image)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if _, err := argv(spec.Container{Entrypoint: []string{}}, image); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		name      string
		add, drop []string
		want      []string
	}{
		{"drop all, add one", []string{"CAP_NET_RAW"}, []string{"ALL"}, []string{"CAP_NET_RAW"}},
		{"drop all", nil, []string{"ALL"}, nil},
		{"drop one", nil, slices.DeleteFunc(slices.Clone(defaultCaps), func(s string) bool { return s == "CAP_KILL" }), []string{"CAP_KILL"}},
	} {
		got, err := capabilities(spec.Container{CapAdd: c.add, CapDrop: c.drop})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if _, err := capabilities(spec.Container{CapAdd: []string{"CAP_NONSENSE"}}); !errors.Is(err, spec.ErrRefused) {
		t.Error(err)
	}
}

// TestConfinement asks the kernel, from inside, what the container may do.
func TestConfinement(t *testing.T) {
	b := newBench(t)
	image := b.app()
	status := b.output(request(image, 1, "cat", "/proc/self/status", "/proc/self/limits", "/proc/1/cgroup"))
	for _, want := range []string{
		"CapInh:\t0000000000000000", "CapEff:\t00000000000005fb", "CapBnd:\t00000000000005fb",
		"NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if strings.Contains(status, b.cfg.Namespace) {
		t.Error("the host's cgroup path shows")
	}
	r := request(image, 2, "serve", "8080")
	b.run(r)
	for _, c := range []struct {
		command string
		code    int
	}{
		{"try mknod", 1}, {"try raw", 1}, {"try chroot", 1}, {"try keyctl", 1}, {"try unshare", 1},
		{"try setuid", 0}, {"listen :80", 0}, {"write /sys/x y", 1}, {"write /proc/sysrq-trigger b", 1},
		{"write /proc/sys/kernel/hostname x", 1},
	} {
		if code, _, _ := b.exec(r.ID, "", strings.Fields("/testapp "+c.command)...); code != c.code {
			t.Errorf("%s: code %d, want %d", c.command, code, c.code)
		}
	}
	if _, out, _ := b.exec(r.ID, "", "/testapp", "cat", "/proc/kcore", "/proc/timer_list"); out != "" {
		t.Errorf("masked paths show %d bytes", len(out))
	}
	if code, _, _ := b.exec(r.ID, "1000", "/testapp", "listen", ":80"); code != 0 {
		t.Error("an unprivileged user can't bind a low port")
	}
	limit, ok := readUint(b.cgroup.procs + "/" + r.ID + "/pids.max")
	if !ok || limit != pidsLimit {
		t.Errorf("pids.max is %d", limit)
	}
}

func TestAdjusted(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "cat", "/proc/self/status", "/proc/self/limits", "/proc/mounts", "/etc/hosts")
	r.Container.CapAdd, r.Container.CapDrop = []string{"CAP_NET_RAW"}, []string{"ALL"}
	r.Container.Ulimits = []spec.Ulimit{{Name: "msgqueue", Soft: 100, Hard: 200}, {Name: "core", Soft: 0, Hard: 0}}
	r.Container.ShmSize = 8 << 20
	r.Container.ReadOnly = true
	r.Container.Mounts = []spec.Mount{{Type: spec.MountTmpfs, Target: "/scratch", Size: 1 << 20, Mode: 0o700, Options: []string{"exec", "gid=2000", "uid=1000"}}}
	r.Files.Hosts = b.file("hosts", "127.0.0.1 from-the-network\n")
	out := b.output(r)
	for _, want := range []string{
		"CapBnd:\t0000000000002000", "Max msgqueue size         100                  200",
		"overlay / overlay ro", "size=8192k", "from-the-network", "tmpfs /scratch tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=700,uid=1000,gid=2000",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestImageConfig(t *testing.T) {
	b := newBench(t)
	image := b.load("example.org/config:1", testenv.Image(t, testenv.ImageSpec{Config: v1.Config{
		Entrypoint: []string{"/testapp"}, Cmd: []string{"env"}, WorkingDir: "/made/here",
		Env: []string{"KEEP=a=b\nc", "CHANGE=image"}, User: "app", StopSignal: "SIGUSR1",
	}}))
	r := request(image, 1)
	r.Container.Command = nil
	r.Container.Environment = []string{"CHANGE=manifest", "NEW=1"}
	out := b.output(r)
	for _, want := range []string{"KEEP=a=b\n", "c\n", "CHANGE=manifest\n", "NEW=1\n", "HOSTNAME=web-1\n", defaultPath + "\n", "HOME=/home/app\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := b.output(request(image, 2, "cat", "/proc/self/status")); !strings.Contains(out, "CapEff:\t0000000000000000") {
		t.Errorf("a user that isn't root has capabilities:\n%s", out)
	}
	r = request(image, 3, "sleep", "1h")
	b.run(r)
	b.awaitReady(r)
	if err := b.Signal(b.ctx, r.ID, ""); err != nil {
		t.Fatal(err)
	}
	if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != 128+10 {
		t.Errorf("the image's stop signal was not used: %+v", i)
	}
}

func TestUsers(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for i, c := range []struct{ user, want string }{
		{"", "uid=0 gid=0 groups=[]"},
		{"app", "uid=1000 gid=1000 groups=[2000]"},
		{"1000", "uid=1000 gid=1000 groups=[2000]"},
		{"app:extra", "uid=1000 gid=2000 groups=[]"},
		{"1234:5678", "uid=1234 gid=5678 groups=[]"},
		{"1234", "uid=1234 gid=0 groups=[]"},
	} {
		r := request(image, i+1, "id")
		r.Container.User = c.user
		if out := b.output(r); out != c.want+"\n" {
			t.Errorf("user %q: %s", c.user, out)
		}
	}
	r := request(image, 99, "id")
	r.Container.User = "nobody-here"
	if err := b.Create(b.ctx, r); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "nobody-here") {
		t.Errorf("missing user: %v", err)
	}
	if list, err := b.Instances(b.ctx); err != nil || len(list) != 0 {
		t.Errorf("a refused create left %v, %v", list, err)
	}
}

func TestMissingProgram(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1)
	r.Container.Entrypoint = []string{"/not/there"}
	b.create(r)
	err := b.Start(b.ctx, r.ID)
	if err == nil || !strings.Contains(err.Error(), "/not/there") || !strings.Contains(err.Error(), "entrypoint:") {
		t.Errorf("error: %v", err)
	}
	if i := b.instance(r.ID); i.Phase != spec.PhaseCreated {
		t.Errorf("after a failed start: %+v", i)
	}
	t.Log(err)
}

func TestMissingImage(t *testing.T) {
	b := newBench(t)
	r := request(spec.PinnedImage{Ref: "example.org/none:1", Digest: "sha256:" + strings.Repeat("0", 64)}, 1)
	if err := b.Create(b.ctx, r); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("create: %v", err)
	}
	if _, err := b.Resolve(b.ctx, "nginx"); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("resolve: %v", err)
	}
}

func TestWrongPlatform(t *testing.T) {
	b := newBench(t)
	img := testenv.Image(t, testenv.ImageSpec{Architecture: "s390x"})
	_, err := b.Load(b.ctx, testenv.Archive(t, map[string]v1.Image{"example.org/other:1": img}))
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "linux/s390x") || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("error: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for i, code := range []int{0, 1, 42, 255} {
		r := request(image, i+1, "exit", strconv.Itoa(code))
		b.run(r)
		if got := b.awaitPhase(r.ID, spec.PhaseExited); got.ExitCode != code || got.StartedAt.IsZero() || got.ExitedAt.Before(got.StartedAt) {
			t.Errorf("%+v", got)
		}
	}
	r := request(image, 9, "stubborn")
	b.run(r)
	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if got := b.awaitPhase(r.ID, spec.PhaseExited); got.ExitCode != 137 {
		t.Errorf("killed: %+v", got)
	}
	if err := b.Signal(b.ctx, r.ID, "SIGTERM"); err != nil {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}
