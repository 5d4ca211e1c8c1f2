package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/orchestrator"
	"dunnage/spec"
)

var _ orchestrator.Deliverer = (*Deliverer)(nil)

// newDeliverer has a run directory of its own, without mounts in the end.
func newDeliverer(t *testing.T) *Deliverer {
	t.Helper()
	testenv.Root(t)
	d := sameDir(t, t.TempDir())
	t.Cleanup(func() {
		entries, _ := os.ReadDir(d.dir)
		for _, e := range entries {
			must(t, d.Withdraw(context.Background(), e.Name()))
		}
	})
	return d
}

func sameDir(t *testing.T, runDir string) *Deliverer {
	t.Helper()
	d, err := NewDeliverer(Config{RunDir: runDir})
	must(t, err)
	return d
}

func file(target, content string) spec.DeliveredFile {
	return spec.DeliveredFile{Target: target, Value: value(content), UID: 1000, GID: 1001, Mode: 0o400}
}

func delivery(fingerprint string, files ...spec.DeliveredFile) spec.Delivery {
	return spec.Delivery{Replica: "shop-web-0a1b2c3d-1", Fingerprint: fingerprint, UID: 33, GID: 34, Files: files}
}

func deliver(t *testing.T, d *Deliverer, want spec.Delivery) {
	t.Helper()
	must(t, d.Deliver(t.Context(), want, nil))
}

func wantDelivered(t *testing.T, d *Deliverer, want map[string]string) {
	t.Helper()
	got, err := d.Delivered()
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("delivered %v, %v; want %v", got, err, want)
	}
}

// tree lists what is below a directory: mode, owner and content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&out, "%v %d:%d %s", fi.Mode(), st.Uid, st.Gid, name)
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %q", b)
		}
		out.WriteString("\n")
		return nil
	}))
	return out.String()
}

func TestPaths(t *testing.T) {
	d := sameDir(t, "/run/dunnage")
	if p := d.Paths("r", spec.Container{Files: []spec.File{{Target: "/etc/x"}}}); p.Dir != "" || p.Env != "" || p.Files != nil {
		t.Errorf("without secrets: %+v", p)
	}
	p := d.Paths("r", spec.Container{
		Secrets: []spec.Secret{
			{Name: "a", Target: "/run/secrets/a"}, {Name: "b", Target: "/run/secrets/sub/b"},
			{Name: "c", Target: "/run/secretsauce"}, {Name: "d", Env: "D"}, {Name: "e"},
		},
		Files: []spec.File{{Target: "/etc/app.conf", Template: true}, {Target: "/etc/plain"}, {Target: "/run/secrets/t", Template: true}},
	})
	const base = "/run/dunnage/secrets/r/"
	if p.Dir != base+"files" || p.Env != base+"env" ||
		!maps.Equal(p.Files, map[string]string{"/etc/app.conf": base + "other/8670dcb679766bcc", "/run/secretsauce": base + "other/0d4a4aba0a728fc6"}) {
		t.Errorf("%+v", p)
	}
	p = d.Paths("r", spec.Container{Files: []spec.File{{Target: "/run/secrets/t", Template: true}}})
	if p.Dir != base+"files" || p.Files != nil {
		t.Errorf("a template below the directory: %+v", p)
	}
}

func TestDeliver(t *testing.T) {
	d := newDeliverer(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	want := delivery("f1",
		file("/etc/app.conf", "password=hunter2"),
		spec.DeliveredFile{Target: "/etc/default-mode", Value: value("x"), UID: 0, GID: 0},
		file("/run/secrets/db", "hunter2"),
		spec.DeliveredFile{Target: "/run/secrets/tls/key.pem", Value: value("line\n\x00line"), UID: 5, GID: 6, Mode: 0o440},
	)
	want.Env = []spec.DeliveredEnv{{Name: "A", Value: value("one\ntwo = 2")}, {Name: "DB_PASSWORD", Value: value("hunter2")}}
	wantDelivered(t, d, map[string]string{})
	deliver(t, d, want)
	base := filepath.Join(d.dir, want.Replica)
	const exact = `drwx------ 0:0 .
-r-------- 33:34 env "A=one\ntwo = 2\x00DB_PASSWORD=hunter2\x00"
drwxr-xr-x 0:0 files
-r-------- 1000:1001 files/db "hunter2"
drwxr-xr-x 0:0 files/tls
-r--r----- 5:6 files/tls/key.pem "line\n\x00line"
-r-------- 0:0 fingerprint "f1"
drwxr-xr-x 0:0 other
-r-------- 0:0 other/37c2badf54a19caa "x"
-r-------- 1000:1001 other/8670dcb679766bcc "password=hunter2"
`
	if got := tree(t, base); got != exact {
		t.Errorf("delivered\n%s\nwant\n%s", got, exact)
	}
	if fi, err := os.Stat(d.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	wantDelivered(t, d, map[string]string{want.Replica: "f1"})
	wantDelivered(t, sameDir(t, filepath.Dir(d.dir)), map[string]string{want.Replica: "f1"}) // an agent started anew

	// Again: nothing is touched.
	before := inodes(t, base)
	must(t, d.Deliver(t.Context(), want, func() error { t.Error("told of a swap that wasn't one"); return nil }))
	if after := inodes(t, base); !maps.Equal(before, after) {
		t.Errorf("files were replaced by the same: %v, %v", before, after)
	}

	// Less, and one changed: the other one stays the very file.
	want = delivery("f2", file("/run/secrets/db", "correct horse"),
		spec.DeliveredFile{Target: "/run/secrets/tls/key.pem", Value: value("line\n\x00line"), UID: 5, GID: 6, Mode: 0o440})
	deliver(t, d, want)
	const less = `drwx------ 0:0 .
-r-------- 33:34 env ""
drwxr-xr-x 0:0 files
-r-------- 1000:1001 files/db "correct horse"
drwxr-xr-x 0:0 files/tls
-r--r----- 5:6 files/tls/key.pem "line\n\x00line"
-r-------- 0:0 fingerprint "f2"
`
	if got := tree(t, base); got != less {
		t.Errorf("delivered\n%s\nwant\n%s", got, less)
	}
	if after := inodes(t, base); before["files/tls/key.pem"] != after["files/tls/key.pem"] || before["files/db"] == after["files/db"] {
		t.Errorf("%v, then %v", before, after)
	}
	wantDelivered(t, d, map[string]string{want.Replica: "f2"})

	// A file where a directory was, and the other way round; other owner and mode.
	deliver(t, d, delivery("f3", file("/run/secrets/tls", "x"), file("/run/secrets/db/a", "y")))
	deliver(t, d, delivery("f4", spec.DeliveredFile{Target: "/run/secrets/tls", Value: value("x"), UID: 7, GID: 8, Mode: 0o644}))
	if got := tree(t, filepath.Join(base, "files")); got != "drwxr-xr-x 0:0 .\n-rw-r--r-- 7:8 tls \"x\"\n" {
		t.Error(got)
	}
	deliver(t, d, delivery("f5"))
	if got := tree(t, base); got != "drwx------ 0:0 .\n-r-------- 33:34 env \"\"\ndrwxr-xr-x 0:0 files\n-r-------- 0:0 fingerprint \"f5\"\n" {
		t.Error(got)
	}
}

// What Deliver writes stands where Paths says, and where it said it when others
// of the container's secrets are absent.
func TestDeliverWherePathsSays(t *testing.T) {
	d := newDeliverer(t)
	targets := []string{"/etc/a", "/etc/b", "/run/secrets/../c", "/run/secrets/d"}
	c := spec.Container{Secrets: []spec.Secret{{Name: "e", Env: "E"}}}
	for _, target := range targets {
		c.Secrets = append(c.Secrets, spec.Secret{Name: path.Base(target), Target: target})
	}
	for left := range targets {
		want := delivery(fmt.Sprint("f", left))
		for _, target := range slices.Delete(slices.Clone(targets), left, left+1) {
			want.Files = append(want.Files, file(target, "value of "+target))
		}
		deliver(t, d, want)
		p := d.Paths(want.Replica, c)
		p.Files["/run/secrets/d"] = filepath.Join(p.Dir, "d")
		if len(p.Files) != len(targets) {
			t.Errorf("paths %+v", p)
		}
		for target, where := range p.Files {
			b, err := os.ReadFile(where)
			if target == targets[left] {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is absent, and there is %q, %v", target, b, err)
				}
			} else if string(b) != "value of "+target {
				t.Errorf("%s has %q, %v", target, b, err)
			}
		}
		for _, source := range []string{p.Dir, p.Env} {
			if _, err := os.Stat(source); err != nil {
				t.Errorf("a mount's source: %v", err)
			}
		}
	}
}

func inodes(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			name, _ := filepath.Rel(dir, path)
			all[name] = fi.Sys().(*syscall.Stat_t).Ino
		}
		return err
	}))
	return all
}

func TestTmpfsStaysInMemory(t *testing.T) {
	d := newDeliverer(t)
	deliver(t, d, delivery("f1", file("/run/secrets/db", "hunter2")))
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	var line string
	for l := range strings.Lines(string(mounts)) {
		if f := strings.Fields(l); f[1] == filepath.Join(d.dir, "shop-web-0a1b2c3d-1") {
			line = f[2] + " " + f[3]
		}
	}
	for _, want := range []string{"nosuid", "nodev", "noexec", "mode=700"} {
		if !strings.Contains(line, want) {
			t.Errorf("mounted as %q, without %s", line, want)
		}
	}
	if !strings.HasPrefix(line, "ramfs") && !strings.Contains(line, "size=65536k") {
		t.Errorf("mounted as %q: no limit", line)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	must(t, err)
	if !strings.HasPrefix(line, "ramfs") && !strings.Contains(line, "noswap") && bytes.Count(swaps, []byte("\n")) > 1 {
		t.Errorf("mounted as %q on a host that swaps", line)
	}
}

// A reader that opens the file over and over sees the old value or the new one.
func TestSwapIsAtomic(t *testing.T) {
	d := newDeliverer(t)
	whole := [2]string{strings.Repeat("a", 100_000), strings.Repeat("b", 100_000)}
	deliver(t, d, delivery("f0", file("/run/secrets/db", whole[0])))
	path := filepath.Join(d.dir, "shop-web-0a1b2c3d-1", "files", "db")
	stop, ended := make(chan struct{}), make(chan string)
	go func() {
		for reads := 0; ; reads++ {
			b, err := os.ReadFile(path)
			if err != nil || !slices.Contains(whole[:], string(b)) {
				ended <- fmt.Sprintf("read %d: %d bytes, %v", reads, len(b), err)
				return
			}
			select {
			case <-stop:
				ended <- ""
				return
			default:
			}
		}
	}()
	for i := range 300 {
		deliver(t, d, delivery(fmt.Sprint("f", i+1), file("/run/secrets/db", whole[(i+1)%2])))
	}
	close(stop)
	if bad := <-ended; bad != "" {
		t.Error(bad)
	}
}

// Whoever was to be told of a swap and wasn't is told by the next delivery, even
// back to what was there before.
func TestSwapCutShort(t *testing.T) {
	d := newDeliverer(t)
	first, second := delivery("f1", file("/run/secrets/db", "one")), delivery("f2", file("/run/secrets/db", "two"))
	for _, next := range []spec.Delivery{second, first} {
		deliver(t, d, first)
		wantDelivered(t, d, map[string]string{first.Replica: "f1"})
		killed := errors.New("killed")
		err := d.Deliver(t.Context(), second, func() error {
			b, err := os.ReadFile(filepath.Join(d.dir, first.Replica, "files", "db"))
			if err != nil || string(b) != "two" {
				t.Errorf("told before the swap: %q, %v", b, err)
			}
			wantDelivered(t, d, map[string]string{first.Replica: ""})
			return killed
		})
		if !errors.Is(err, killed) {
			t.Fatal(err)
		}
		wantDelivered(t, d, map[string]string{first.Replica: ""})
		wantDelivered(t, sameDir(t, filepath.Dir(d.dir)), map[string]string{first.Replica: ""})
		told := 0
		must(t, d.Deliver(t.Context(), next, func() error { told++; return nil }))
		if told != 1 {
			t.Errorf("told %d times", told)
		}
		wantDelivered(t, d, map[string]string{first.Replica: next.Fingerprint})
	}
}

func TestLostTmpfsAndWithdraw(t *testing.T) {
	d := newDeliverer(t)
	want := delivery("f1", file("/run/secrets/db", "hunter2"))
	base := filepath.Join(d.dir, want.Replica)
	must(t, d.Withdraw(t.Context(), want.Replica)) // nothing is there: fine
	for range 2 {                                  // the kernel may give the same device number again
		deliver(t, d, want)
		wantDelivered(t, d, map[string]string{want.Replica: "f1"})
		must(t, unix.Unmount(base, 0)) // somebody's
		wantDelivered(t, d, map[string]string{want.Replica: ""})
	}
	deliver(t, d, want)
	wantDelivered(t, d, map[string]string{want.Replica: "f1"})

	// In use: it goes all the same, and so does what stood on it.
	f, err := os.Open(filepath.Join(base, "files"))
	must(t, err)
	defer f.Close()
	must(t, d.Withdraw(t.Context(), want.Replica))
	if names, _ := f.Readdirnames(-1); len(names) > 0 {
		t.Errorf("still readable: %v", names)
	}
	if _, err := os.Lstat(base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	wantDelivered(t, d, map[string]string{})

	// Two mounts on each other, as nobody should leave them.
	deliver(t, d, want)
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	must(t, d.Withdraw(t.Context(), want.Replica))
	wantDelivered(t, d, map[string]string{})

	// Made or removed by others, behind an unchanged list of mounts.
	must(t, os.Mkdir(base, 0o700))
	wantDelivered(t, d, map[string]string{want.Replica: ""})
	must(t, os.Remove(base))
	wantDelivered(t, d, map[string]string{})
}

// What others mount over a replica's tmpfs gets no value, and goes with it.
func TestMountsOfOthers(t *testing.T) {
	d := newDeliverer(t)
	want := delivery("f1", file("/run/secrets/db", "hunter2"))
	base := filepath.Join(d.dir, want.Replica)
	deliver(t, d, want)
	must(t, unix.Mount("proc", base, "proc", 0, "")) // whatever isn't a tmpfs
	err := d.Deliver(t.Context(), delivery("f2", file("/run/secrets/db", "hunter3")), nil)
	if err == nil || !strings.Contains(err.Error(), base+" isn't a tmpfs, and may be a disk: unmount it") {
		t.Errorf("delivered onto a foreign mount: %v", err)
	}
	other := t.TempDir()
	must(t, unix.Mount(other, base, "", unix.MS_BIND, "")) // of the device that the directory is on
	must(t, d.Withdraw(t.Context(), want.Replica))
	if _, err := os.Lstat(base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
}

// A process whose container has a tmpfs that is gone from the host sees nothing of
// what is delivered since.
func TestReaches(t *testing.T) {
	d := newDeliverer(t)
	want := delivery("f1", file("/run/secrets/db", "hunter2"))
	base := filepath.Join(d.dir, want.Replica)
	deliver(t, d, want)
	root := t.TempDir() // what a process has as its root
	must(t, os.MkdirAll(filepath.Join(root, spec.SecretDir), 0o755))
	must(t, unix.Mount(filepath.Join(base, "files"), filepath.Join(root, spec.SecretDir), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(root, spec.SecretDir), unix.MNT_DETACH)) })
	reaches := func(want bool) {
		t.Helper()
		if got, err := d.reaches("shop-web-0a1b2c3d-1", root); err != nil || got != want {
			t.Errorf("reaches: %v, %v, want %v", got, err, want)
		}
	}
	reaches(true)
	must(t, unix.Unmount(base, unix.MNT_DETACH))
	deliver(t, d, want)
	reaches(false)
}

// Twenty secrets at once, to two replicas from many sides.
func TestDeliverManySecrets(t *testing.T) {
	d := newDeliverer(t)
	done := make(chan error)
	for i := range 8 {
		go func() {
			want := delivery("f1")
			want.Replica = fmt.Sprint("shop-web-", i%2)
			for n := range 20 {
				want.Files = append(want.Files, file(fmt.Sprintf("/run/secrets/s%02d", n), fmt.Sprint("value ", n)))
			}
			err := d.Deliver(context.Background(), want, nil)
			_, listErr := d.Delivered()
			done <- errors.Join(err, listErr)
		}()
	}
	for range 8 {
		must(t, <-done)
	}
	wantDelivered(t, d, map[string]string{"shop-web-0": "f1", "shop-web-1": "f1"})
	for r := range 2 {
		for n := range 20 {
			b, err := os.ReadFile(filepath.Join(d.dir, fmt.Sprint("shop-web-", r), "files", fmt.Sprintf("s%02d", n)))
			if err != nil || string(b) != fmt.Sprint("value ", n) {
				t.Errorf("%q, %v", b, err)
			}
		}
	}
}

func TestDeliverRefuses(t *testing.T) {
	d := newDeliverer(t)
	nul := delivery("f1")
	nul.Env = []spec.DeliveredEnv{{Name: "A", Value: value("hunter2\x00")}}
	badName := delivery("f1")
	badName.Env = []spec.DeliveredEnv{{Name: "A=B", Value: value("x")}}
	for what, bad := range map[string]spec.Delivery{
		"NUL": nul, "name": badName, "relative": delivery("f1", file("etc/x", "hunter2")),
	} {
		err := d.Deliver(t.Context(), bad, nil)
		if !errors.Is(err, spec.ErrRefused) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a\x00"} {
		bad := delivery("f1")
		bad.Replica = name
		if err := d.Deliver(t.Context(), bad, nil); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%q: %v", name, err)
		}
		if err := d.Withdraw(t.Context(), name); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%q: %v", name, err)
		}
	}
	must(t, d.Deliver(t.Context(), delivery("f1", file("/run/secrets/../../../../../etc/x", "elsewhere")), nil))
	got := tree(t, filepath.Join(d.dir, "shop-web-0a1b2c3d-1"))
	if !strings.Contains(got, `other/4074fa014f8d9a3a "elsewhere"`) {
		t.Error(got)
	}
	var large []spec.DeliveredFile
	for i := range 140 {
		large = append(large, file(fmt.Sprintf("/run/secrets/%03d", i), strings.Repeat("x", spec.MaxSecret)))
	}
	if err := d.Deliver(t.Context(), delivery("f2", large...), nil); err == nil || !strings.Contains(err.Error(), "64M of secrets") {
		t.Errorf("more than fits: %v", err)
	}
	wantDelivered(t, d, map[string]string{"shop-web-0a1b2c3d-1": ""})
	deliver(t, d, delivery("f3"))
}

// What a container with much power puts in its directory leads no write elsewhere.
func TestDeliverThroughLinks(t *testing.T) {
	d := newDeliverer(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "db"), []byte("theirs"), 0o644))
	deliver(t, d, delivery("f1", file("/run/secrets/sub/db", "one"), file("/run/secrets/top", "one")))
	files := filepath.Join(d.dir, "shop-web-0a1b2c3d-1", "files")
	must(t, os.RemoveAll(filepath.Join(files, "sub")))
	must(t, os.Symlink(outside, filepath.Join(files, "sub")))
	must(t, os.Remove(filepath.Join(files, "top")))
	must(t, os.Symlink(filepath.Join(outside, "db"), filepath.Join(files, "top")))
	deliver(t, d, delivery("f2", file("/run/secrets/sub/db", "two"), file("/run/secrets/top", "two")))
	if got := tree(t, outside); !strings.Contains(got, `db "theirs"`) || strings.Contains(got, "two") {
		t.Error(got)
	}
	if got := tree(t, files); strings.Count(got, `"two"`) != 2 {
		t.Error(got)
	}
}

// A link in the place of a replica's directory leads no mount elsewhere.
func TestDeliverToALink(t *testing.T) {
	d := newDeliverer(t)
	outside := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(outside, unix.MNT_DETACH) }) // there is a mount only where this fails
	must(t, os.WriteFile(filepath.Join(outside, "theirs"), []byte("theirs"), 0o644))
	dir := filepath.Join(d.dir, "shop-web-0a1b2c3d-1")
	must(t, os.MkdirAll(d.dir, 0o700))
	must(t, os.Symlink(outside, dir))
	err := d.Deliver(t.Context(), delivery("f1", file("/run/secrets/db", "one")), nil)
	if err == nil || !strings.Contains(err.Error(), dir+" is no directory: move it away") {
		t.Error(err)
	}
	if got := tree(t, outside); !strings.Contains(got, `theirs "theirs"`) || strings.Contains(got, "one") {
		t.Error(got)
	}
	must(t, d.Withdraw(t.Context(), "shop-web-0a1b2c3d-1"))
	deliver(t, d, delivery("f1", file("/run/secrets/db", "one")))
}

// Harden is for a process of its own: it can't be undone for what it has seen.
func TestHarden(t *testing.T) {
	if os.Getenv("DUNNAGE_TEST_HARDEN") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHarden$", "-test.v")
		cmd.Env = append(os.Environ(), "DUNNAGE_TEST_HARDEN=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestHarden") {
			t.Errorf("%s%v", out, err)
		}
		return
	}
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_CORE, &before))
	must(t, Harden())
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
		t.Errorf("dumpable %d, %v", n, err)
	}
	child, err := exec.Command("/bin/sh", "-c", "ulimit -Hc").Output()
	want := fmt.Sprint(before.Max / 512)
	if before.Max == unix.RLIM_INFINITY {
		want = "unlimited"
	}
	if err != nil || strings.TrimSpace(string(child)) != want {
		t.Errorf("a child may write a core of %q, not %s: %v", child, want, err)
	}
}
