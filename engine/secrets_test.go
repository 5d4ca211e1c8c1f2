package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// delivery is what the deliverer makes, in a directory that only root may enter.
type delivery struct {
	t        *testing.T
	dir      string
	uid, gid int
	spec.SecretPaths
}

func newDelivery(t *testing.T) *delivery {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "delivered")
	return &delivery{t: t, dir: dir}
}

// put writes a file, below the directory or by itself, as a new inode.
func (d *delivery) put(name, value string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Chmod(d.dir, 0o700))
	next := path + ".new"
	err = errors.Join(err, os.WriteFile(next, []byte(value), 0o400), os.Chown(next, d.uid, d.gid), os.Rename(next, path))
	if err != nil {
		d.t.Fatal(err)
	}
	return path
}

// variables delivers NAME=VALUE entries.
func (d *delivery) variables(kv ...string) {
	d.t.Helper()
	d.Env = d.put("env", strings.Join(kv, "\x00")+"\x00")
}

// cats is the content of a file in a replica.
func (b *bench) cats(id, path string) string {
	b.t.Helper()
	_, out, errs := b.exec(id, "", "/testapp", "cat", path)
	return out + errs
}

func (b *bench) again(id string) {
	b.t.Helper()
	if err := b.Signal(b.ctx, id, "SIGKILL"); err != nil {
		b.t.Fatal(err)
	}
	b.awaitPhase(id, spec.PhaseExited)
	if err := b.Start(b.ctx, id); err != nil {
		b.t.Fatal(err)
	}
}

// TestSecretFiles: they come by the start, not by the creation; below the
// directory a new one is seen at once, elsewhere at the next start.
func TestSecretFiles(t *testing.T) {
	b := newBench(t)
	d := newDelivery(t)
	d.uid, d.gid = 1000, 1000
	r := request(b.app(), 1, "serve", "8080")
	r.Container.User, r.Container.ReadOnly = "app", true
	r.Container.Mounts = []spec.Mount{{Type: spec.MountTmpfs, Target: "/run"}}
	r.Container.Files = []spec.File{
		{Target: "/etc/plain.conf", Content: []byte("plain"), Mode: 0o444},
		{Target: "/etc/filled.conf", Content: []byte(`{{ secret "a" }}`), Template: true},
	}
	r.Secrets = spec.SecretPaths{Dir: d.dir + "/files", Files: map[string]string{
		"/etc/filled.conf": d.dir + "/1", "/var/lib/key": d.dir + "/2",
	}}
	b.create(r)
	if _, err := os.Lstat(d.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the creation made something: %v", err)
	}
	err := b.Start(b.ctx, r.ID)
	if err == nil || !strings.Contains(err.Error(), d.dir) || !strings.Contains(err.Error(), "its secrets are not delivered") {
		t.Errorf("without secrets: %v", err)
	}
	d.put("files/a", "first")
	d.put("1", "filled first")
	d.put("2", "key first")
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	b.awaitReady(r)
	reads := func(want map[string]string) {
		t.Helper()
		for path, content := range want {
			if got := b.cats(r.ID, path); got != content {
				t.Errorf("%s has %q, want %q", path, got, content)
			}
		}
	}
	reads(map[string]string{"/run/secrets/a": "first", "/etc/filled.conf": "filled first", "/var/lib/key": "key first", "/etc/plain.conf": "plain"})
	if _, out, errs := b.exec(r.ID, "", "/testapp", "ls", "/run/secrets/a"); out != "-r-------- 1000 1000 /run/secrets/a\n" {
		t.Error(out, errs)
	}
	if left, err := filepath.Glob(b.cfg.filesDir(r.ID) + "/*"); len(left) != 1 || err != nil {
		t.Errorf("files on the disk: %q %v", left, err)
	}
	d.put("files/a", "second")
	d.put("files/b", "more")
	d.put("1", "filled second")
	reads(map[string]string{"/run/secrets/a": "second", "/run/secrets/b": "more", "/etc/filled.conf": "filled first"})
	b.again(r.ID)
	reads(map[string]string{"/run/secrets/a": "second", "/etc/filled.conf": "filled second"})
}

// TestSecretFilesAreReadOnly: for the container's root, who owns them, too.
func TestSecretFilesAreReadOnly(t *testing.T) {
	b := newBench(t)
	d := newDelivery(t)
	r := request(b.app(), 1, "serve", "8080")
	r.Secrets = spec.SecretPaths{Dir: filepath.Dir(d.put("files/a", "value")), Files: map[string]string{"/key": d.put("1", "value")}}
	d.variables("A=b")
	r.Secrets.Env = d.Env
	b.run(r)
	b.awaitReady(r)
	for _, command := range []string{
		"write /run/secrets/a x", "write /run/secrets/new x", "write /key x", "write /.dunnage-env x",
		"try remount /run/secrets", "try remount /key", "try remount /.dunnage-env",
	} {
		if code, _, errs := b.exec(r.ID, "", strings.Fields("/testapp "+command)...); code == 0 {
			t.Errorf("%s: done %s", command, errs)
		}
	}
	if code, _, errs := b.exec(r.ID, "", "/testapp", "write", "/run/other", "x"); code != 0 {
		t.Errorf("what isn't ours can't be written: %s", errs)
	}
	mounts := b.cats(r.ID, "/proc/self/mounts")
	for place, options := range map[string]string{"/run/secrets": "ro,nosuid,nodev,noexec", "/.dunnage-env": "ro,nosuid,nodev,noexec", "/key": "ro,nosuid,nodev,"} {
		if _, after, ok := strings.Cut(mounts, " "+place+" "); !ok || !strings.Contains(strings.SplitN(after, "\n", 2)[0], options) {
			t.Errorf("%s isn't %s:\n%s", place, options, mounts)
		}
	}
}

// TestSecretsAmongMounts: a mount above them hides none, and one in their place
// is refused.
func TestSecretsAmongMounts(t *testing.T) {
	b := newBench(t)
	d := newDelivery(t)
	image := b.load("example.org/linked:1", testenv.Image(t, testenv.ImageSpec{
		Layers: [][]testenv.File{{{Path: "run/", Mode: 0o755}, {Path: "var/run", Link: "/run"}}},
		Config: v1.Config{Entrypoint: []string{"/testapp"}},
	}))
	paths := spec.SecretPaths{Dir: filepath.Dir(d.put("files/a", "value"))}
	for n, target := range []string{"/run", "/var/run"} { // a symlink to /run
		r := request(image, n+1, "cat", "/run/secrets/a")
		r.Secrets, r.Container.Mounts = paths, []spec.Mount{{Type: spec.MountTmpfs, Target: target}}
		if out := b.output(r); out != "value\n" {
			t.Errorf("tmpfs at %s: %s", target, out)
		}
	}
	r := request(image, 3, "cat", "/run/secrets/a")
	r.Secrets, r.Container.Mounts = paths, []spec.Mount{{Type: spec.MountTmpfs, Target: "/run/secrets/"}}
	if err := b.Create(b.ctx, r); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "/run/secrets") {
		t.Errorf("a mount in the place of secrets: %v", err)
	}
}

const canary = "qu7Ieth9aCanaryoh3Xo"

// TestSecretEnv: however the program is started, it has the variables and is
// what it would be without, and nobody else has them.
func TestSecretEnv(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, c := range []struct {
		name string
		with func(*spec.Container)
	}{
		{"plain", func(*spec.Container) {}},
		{"non-root", func(c *spec.Container) { c.User = "app" }},
		{"init", func(c *spec.Container) { c.Init = true }},
		{"stdin", func(c *spec.Container) { c.StdinOpen = true }},
		{"tty", func(c *spec.Container) { c.TTY, c.StdinOpen = true, true }},
		{"all", func(c *spec.Container) { c.Init, c.StdinOpen, c.User, c.CapDrop = true, true, "app", []string{"ALL"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDelivery(t)
			r := request(image, n+1, "sleep", "1h")
			c.with(&r.Container)
			r.Container.Environment = []string{"PASSWORD=", "OTHER=stays"}
			if r.Container.User != "" {
				d.uid, d.gid = 1000, 1000
			}
			d.variables("PASSWORD="+canary, "SECOND=a=b")
			r.Secrets = d.SecretPaths
			b.run(r)
			b.awaitReady(r)
			pid := b.instance(r.ID).Pid
			if r.Container.Init {
				if env := environ(t, pid); strings.Contains(env, canary) {
					t.Errorf("the first process, which doesn't need it, has it: %q", env)
				}
				pid = b.otherProcess(r.ID, pid)
			}
			env := environ(t, pid)
			for _, want := range []string{"PASSWORD=" + canary, "SECOND=a=b", "OTHER=stays", "HOSTNAME=web-1"} {
				if !slices.Contains(strings.Split(env, "\x00"), want) {
					t.Errorf("no %s in %q", want, env)
				}
			}
			if strings.Count(env, "PASSWORD=") != 1 {
				t.Errorf("twice in %q", env)
			}
			if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); string(cmdline) != "/testapp\x00sleep\x001h\x00" {
				t.Errorf("it is %q, %v", cmdline, err)
			}
			open := openFiles(t, pid)
			if strings.Contains(open, "env") || r.Container.TTY != strings.Contains(open, "0:/dev/pts/") {
				t.Errorf("it has open:\n%s", open)
			}
			b.hidden(r.ID)
			if err := b.Signal(b.ctx, r.ID, ""); err != nil {
				t.Fatal(err)
			}
			if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != 128+15 {
				t.Errorf("exit code %d after SIGTERM", i.ExitCode)
			}
		})
	}
}

func environ(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// otherProcess is the one beside the first process.
func (b *bench) otherProcess(id string, first int) int {
	b.t.Helper()
	pids := slices.DeleteFunc(b.cgroup.pids(id), func(pid int) bool { return pid == first })
	if len(pids) != 1 {
		b.t.Fatalf("processes beside %d: %v", first, pids)
	}
	return pids[0]
}

func openFiles(t *testing.T, pid int) string {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(names) < 3 {
		t.Fatalf("%q %v", names, err)
	}
	var out strings.Builder
	for _, name := range names {
		to, err := os.Readlink(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s:%s\n", filepath.Base(name), to)
	}
	return out.String()
}

// hidden looks for the canary in whatever containerd has of a container, in
// memory and on the disk, and for its path, to see that it would find something.
func (b *bench) hidden(id string) {
	b.t.Helper()
	c, err := b.client.ContainerService().Get(b.ctx, id)
	if err != nil {
		b.t.Fatal(err)
	}
	text := fmt.Sprintf("%+v %s", c, c.Spec.GetValue())
	for name, e := range c.Extensions {
		text += name + string(e.GetValue())
	}
	if strings.Contains(text, canary) || !strings.Contains(text, envTarget) {
		b.t.Errorf("the container's record: %s", text)
	}
	var paths []string
	err = filepath.WalkDir(b.daemon.Dir, func(path string, f fs.DirEntry, err error) error {
		if err != nil || !f.Type().IsRegular() {
			return nil //nolint:nilerr // gone meanwhile
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte(canary)) {
			b.t.Errorf("it stands in %s", path)
		}
		if bytes.Contains(body, []byte(envTarget)) {
			paths = append(paths, filepath.Base(path))
		}
		return err
	})
	if err != nil || !slices.Contains(paths, "meta.db") || !slices.Contains(paths, "config.json") {
		b.t.Errorf("looked in %q, %v", paths, err)
	}
}

// TestSecretEnvInCommands: what is run in the container has them too, as the
// container's own user and its root, and under the next agent.
func TestSecretEnvInCommands(t *testing.T) {
	b := newBench(t)
	d := newDelivery(t)
	d.uid, d.gid = 1000, 1000
	d.variables("PASSWORD=" + canary)
	r := request(b.app(), 1, "serve", "8080")
	r.Container.User, r.Secrets = "app", d.SecretPaths
	r.Container.Probes = []spec.Probe{{Kind: spec.ProbeExec}}
	b.run(r)
	b.awaitReady(r)
	for range 2 {
		for user, want := range map[string]bool{"": true, "app": true, "0": true, "4711": false} {
			code, out, errs := b.exec(r.ID, user, "/testapp", "env")
			if code != 0 || strings.Contains(out, canary) != want {
				t.Errorf("as %q: code %d %s%s", user, code, out, errs)
			}
		}
		if out := b.passes(r.ID, 0, "/testapp", "env"); !strings.Contains(out, "PASSWORD="+canary) {
			t.Errorf("a check has %s", out)
		}
		if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", b.oneProber(r.ID))); err != nil || strings.Contains(string(environ), canary) {
			t.Errorf("the prober, which lives on, has %q, %v", environ, err)
		}
		if code, _, errs := b.exec(r.ID, "", "nothing"); code != 127 || errs != "dunnage-init: no program nothing in the PATH of the container\n" {
			t.Errorf("code %d %s", code, errs)
		}
		if code, _, errs := b.exec(r.ID, "", "/etc/passwd"); code != 126 || errs != "dunnage-init: exec /etc/passwd: permission denied\n" {
			t.Errorf("code %d %s", code, errs)
		}
		b.connect()
	}
	if cmdlines := commandLines(t); strings.Contains(cmdlines, canary) || !strings.Contains(cmdlines, r.ID) {
		t.Errorf("arguments of processes:\n%s", cmdlines)
	}
}

func commandLines(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil { // else it has ended
			out.WriteString(strings.ReplaceAll(string(b), "\x00", " ") + "\n")
		}
	}
	return out.String()
}

// TestSecretEnvRefused: the log says why there is no program.
func TestSecretEnvRefused(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, c := range []struct {
		code     int
		program  string
		file, in string
	}{
		{127, "nothing", "A=b\x00", "no program nothing in the PATH of the container; the image has no such program: check command: and entrypoint:"},
		{127, "/nothing", "A=b\x00", "exec /nothing: no such file or directory; the image has no such program: check command: and entrypoint:"},
		{126, "/etc/passwd", "A=b\x00", "exec /etc/passwd: permission denied; the file is not executable"},
		{126, "/testapp", "A=" + strings.Repeat(canary, 10_000) + "\x00", "exec /testapp: argument list too long; the kernel takes 128 KiB of one variable"},
		{126, "/testapp", canary, "read the secret variables: /.dunnage-env is malformed"},
	} {
		d := newDelivery(t)
		r := request(image, n+1)
		r.Container.Entrypoint, r.Container.Command = []string{c.program}, []string{}
		r.Secrets.Env = d.put("env", c.file)
		b.run(r)
		i := b.awaitPhase(r.ID, spec.PhaseExited)
		if err := b.Remove(b.ctx, r.ID); err != nil {
			t.Fatal(err)
		}
		if log := b.log(r.ReplicaKey); i.ExitCode != c.code || !strings.HasPrefix(log, "dunnage-init: "+c.in) || strings.Contains(log, canary) {
			t.Errorf("%s: code %d, want %d: %.1000s", c.program, i.ExitCode, c.code, log)
		}
	}
}

// TestSecretEnvEarlySignal: a signal that comes before the program is there
// ends nothing, as the kernel ends no first process with one.
func TestSecretEnvEarlySignal(t *testing.T) {
	b := newBench(t)
	pipe := filepath.Join(t.TempDir(), "env")
	if err := unix.Mkfifo(pipe, 0o400); err != nil {
		t.Fatal(err)
	}
	r := request(b.app(), 1, "sleep", "1h")
	r.Secrets.Env = pipe
	b.run(r)
	var w *os.File
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if w, err = os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil { // it reads
			break
		}
		if !errors.Is(err, unix.ENXIO) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"SIGHUP", "SIGTERM"} {
		if err := b.Signal(b.ctx, r.ID, s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.WriteString("A=b\x00"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.awaitReady(r)
	if err := b.Signal(b.ctx, r.ID, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	if i := b.awaitPhase(r.ID, spec.PhaseExited); i.ExitCode != 128+15 {
		t.Errorf("exit code %d", i.ExitCode)
	}
}

func TestUser(t *testing.T) {
	b := newBench(t)
	image := b.app()
	for n, c := range []struct {
		name     string
		uid, gid uint32
	}{{"", 0, 0}, {"app", 1000, 1000}, {"4711:12", 4711, 12}} {
		r := request(image, n+1, "sleep", "1h")
		r.Container.User = c.name
		b.create(r)
		if uid, gid, err := b.User(b.ctx, r.ID); uid != c.uid || gid != c.gid || err != nil {
			t.Errorf("%q: %d %d %v", c.name, uid, gid, err)
		}
	}
	if _, _, err := b.User(b.ctx, "none"); !errors.Is(err, spec.ErrNotFound) {
		t.Error(err)
	}
}
