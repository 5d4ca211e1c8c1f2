package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func xattr(path, name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Getxattr(path, name, buf)
	return string(buf[:max(n, 0)]), err
}

// TestBoundFile: a file is mounted by its inode. One that is replaced by a
// rename is seen when the replica starts again.
func TestBoundFile(t *testing.T) {
	b := newBench(t)
	path := b.file("app.conf", "old")
	r := request(b.app(), 1, "serve", "8080")
	r.Container.Mounts = []spec.Mount{{Type: spec.MountBind, Source: path, Target: "/etc/app.conf", ReadOnly: true}}
	b.run(r)
	reads := func(want string) {
		t.Helper()
		if _, out, errs := b.exec(r.ID, "", "/testapp", "cat", "/etc/app.conf"); out != want {
			t.Errorf("the file says %q %s, want %q", out, errs, want)
		}
	}
	reads("old")
	b.file("app.conf", "written in place")
	reads("written in place")
	if err := os.Rename(b.file("next.conf", "new"), path); err != nil {
		t.Fatal(err)
	}
	reads("written in place")
	if err := b.Signal(b.ctx, r.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	b.awaitPhase(r.ID, spec.PhaseExited)
	if err := b.Start(b.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	reads("new")
}

// TestMountOptions: the kernel enforces what the manifest asks for.
func TestMountOptions(t *testing.T) {
	b := newBench(t)
	dir := b.daemon.Dir + "/programs"
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/testapp", testenv.TestApp(t), 0o755)); err != nil {
		t.Fatal(err)
	}
	r := request(b.app(), 1, "serve", "8080")
	bind := func(target string, options ...string) spec.Mount {
		return spec.Mount{Type: spec.MountBind, Source: dir, Target: target, Options: options}
	}
	r.Container.Mounts = []spec.Mount{
		bind("/plain"), bind("/strict", "noexec", "nosuid", "nodev"),
		{Type: spec.MountTmpfs, Target: "/small", Size: 64 << 10},
	}
	b.run(r)
	if code, _, errs := b.exec(r.ID, "", "/plain/testapp", "id"); code != 0 {
		t.Errorf("without options: %d %s", code, errs)
	}
	if code, _, _ := b.exec(r.ID, "", "/strict/testapp", "id"); code != 126 {
		t.Errorf("noexec: code %d", code)
	}
	if _, out, _ := b.exec(r.ID, "", "/testapp", "cat", "/proc/mounts"); !strings.Contains(out, " /strict ") || !strings.Contains(out[strings.Index(out, " /strict "):], "nosuid,nodev,noexec") {
		t.Errorf("mounts:\n%s", out)
	}
	if code, _, errs := b.exec(r.ID, "", "/testapp", "write", "/small/file", strings.Repeat("x", 100<<10)); code == 0 || !strings.Contains(errs, "no space left") {
		t.Errorf("a tmpfs beyond its size: code %d %s", code, errs)
	}
}

// TestMountOverImageVolume: what the manifest mounts there is all there is.
func TestMountOverImageVolume(t *testing.T) {
	b := newBench(t)
	r := request(b.dataImage(), 1, "serve", "8080")
	r.Container.Mounts = []spec.Mount{volumeAt("p_named", "/anonymous/")}
	b.run(r)
	if code, _, errs := b.exec(r.ID, "", "/testapp", "write", "/anonymous/x", "y"); code != 0 {
		t.Error(errs)
	}
	if _, err := os.Stat(b.cfg.volumesDir() + "/p_named/" + dataDir + "/x"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(b.cfg.anonymousDir() + "/" + r.ID); err == nil && len(entries) > 0 {
		t.Errorf("an anonymous volume as well: %v", entries)
	}
}

func TestManyMounts(t *testing.T) {
	b := newBench(t)
	r := request(b.app(), 1, "cat", "/m/199/inner/file")
	for i := range 200 {
		base := fmt.Sprintf("%s/many/%d", b.daemon.Dir, i)
		if err := errors.Join(os.MkdirAll(base, 0o755), os.WriteFile(base+"/file", fmt.Appendf(nil, "mount %d\n", i), 0o644)); err != nil {
			t.Fatal(err)
		}
		r.Container.Mounts = append(r.Container.Mounts, spec.Mount{Type: spec.MountBind, Source: base, Target: fmt.Sprintf("/m/%d/inner", i)})
	}
	if out := b.output(r); out != "mount 199\n" {
		t.Error(out)
	}
}
