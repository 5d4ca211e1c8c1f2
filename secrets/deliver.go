package secrets

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/keyed"
	"dunnage/spec"
)

// Deliverer keeps a tmpfs for each replica at RunDir/secrets/REPLICA:
//
//	files/       what stands below spec.SecretDir in the container
//	other/HASH   a file for another path, of which that is the hash
//	env          NAME=VALUE, each ended by a NUL byte
//	fingerprint  of the whole, while it is complete
//
// Only this process writes there. It is safe for concurrent use.
type Deliverer struct {
	dir      string
	replicas keyed.Mutex

	mu   sync.Mutex
	seen seen
}

const (
	filesDir        = "files"
	otherDir        = "other"
	envFile         = "env"
	fingerprintFile = "fingerprint"
	scratchFile     = "scratch" // a file that is being written
)

// NewDeliverer makes nothing yet; of c only RunDir counts.
func NewDeliverer(c Config) (*Deliverer, error) {
	if !filepath.IsAbs(c.RunDir) {
		return nil, fmt.Errorf("run directory %q: use an absolute path: %w", c.RunDir, spec.ErrRefused)
	}
	return &Deliverer{dir: filepath.Join(c.RunDir, "secrets")}, nil
}

// Paths says where Deliver puts what the container uses. It looks at nothing else.
func (d *Deliverer) Paths(replica string, c spec.Container) spec.SecretPaths {
	var p spec.SecretPaths
	base := filepath.Join(d.dir, replica)
	at := func(target string) {
		if spec.InSecretDir(path.Clean(target)) {
			p.Dir = filepath.Join(base, filesDir)
			return
		}
		if p.Files == nil {
			p.Files = map[string]string{}
		}
		p.Files[target] = filepath.Join(base, place(target))
	}
	for _, s := range c.Secrets {
		if s.Target != "" {
			at(s.Target)
		}
		if s.Env != "" {
			p.Env = filepath.Join(base, envFile)
		}
	}
	for _, f := range c.Files {
		if f.Template {
			at(f.Target)
		}
	}
	return p
}

// place is where the file for a target stands on the tmpfs. It hangs on no other
// target: one that is left out must not give its place to another's value.
func place(target string) string {
	target = path.Clean(target)
	if spec.InSecretDir(target) {
		return filepath.Join(filesDir, strings.TrimPrefix(target, spec.SecretDir))
	}
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(otherDir, hex.EncodeToString(sum[:8]))
}

// placed is a file of a delivery and where it goes on the tmpfs.
type placed struct {
	name string
	spec.DeliveredFile
}

// files finds the place of each file, the variables' last. That is there even
// without any, since a container's mounts don't know which secrets are absent.
func files(d spec.Delivery) ([]placed, error) {
	var all []placed
	for _, f := range d.Files {
		if !path.IsAbs(f.Target) {
			return nil, fmt.Errorf("%q isn't an absolute path: %w", f.Target, spec.ErrRefused)
		}
		f.Mode = cmp.Or(f.Mode&0o777, 0o400)
		all = append(all, placed{place(f.Target), f})
	}
	env, err := environ(d)
	return append(all, placed{envFile, env}), err
}

// environ is the file with the variables.
func environ(d spec.Delivery) (spec.DeliveredFile, error) {
	size := 0
	for _, e := range d.Env {
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
			return spec.DeliveredFile{}, fmt.Errorf("%q can't be the name of a variable: %w", e.Name, spec.ErrRefused)
		}
		if bytes.IndexByte(e.Value.Reveal(), 0) >= 0 {
			return spec.DeliveredFile{}, fmt.Errorf("the value for variable %s has a NUL byte, which no variable can hold; give the secret as a file: %w", e.Name, spec.ErrRefused)
		}
		size += len(e.Name) + len(e.Value.Reveal()) + 2
	}
	b := make([]byte, 0, size) // never moved, so that one copy is all there is to clear
	for _, e := range d.Env {
		b = append(append(b, e.Name...), '=')
		b = append(append(b, e.Value.Reveal()...), 0)
	}
	return spec.DeliveredFile{Value: spec.NewSecretValue(b), UID: d.UID, GID: d.GID, Mode: 0o400}, nil
}

// Deliver makes the replica's tmpfs equal to want. The fingerprint goes before the
// first change and comes back after the last: what is cut short isn't complete.
func (d *Deliverer) Deliver(ctx context.Context, want spec.Delivery, swapped func() error) error {
	if err := checkReplica(want.Replica); err != nil {
		return err
	}
	defer d.replicas.Lock(want.Replica)()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.deliver(want, swapped); err != nil {
		return fmt.Errorf("deliver secrets to %s: %w", want.Replica, err)
	}
	return nil
}

func (d *Deliverer) deliver(want spec.Delivery, swapped func() error) error {
	files, err := files(want)
	if err != nil {
		return err
	}
	defer files[len(files)-1].Value.Clear() // the copy that environ made
	dir := filepath.Join(d.dir, want.Replica)
	err = ensureMounted(dir)
	d.lookAgain()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // whoever may write in the container leads no write elsewhere
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	w := &writer{root: root, before: func() error { return d.note(root, want.Replica, "") }}
	if w.noted() != want.Fingerprint {
		if err := w.change(); err != nil {
			return err
		}
	}
	if err := w.equal(files); err != nil {
		return err
	}
	if !w.changed {
		return nil
	}
	if swapped != nil {
		if err := swapped(); err != nil {
			return err
		}
	}
	return d.note(root, want.Replica, want.Fingerprint)
}

// Reaches compares the file system at spec.SecretDir, as the process sees it, with
// the replica's.
func (d *Deliverer) Reaches(replica string, pid int) (bool, error) {
	return d.reaches(replica, fmt.Sprintf("/proc/%d/root", pid))
}

func (d *Deliverer) reaches(replica, root string) (bool, error) {
	var theirs, ours unix.Stat_t
	if err := unix.Stat(filepath.Join(d.dir, replica, filesDir), &ours); err != nil {
		return false, fmt.Errorf("look at the secrets of %s: %w", replica, err)
	}
	if err := unix.Stat(filepath.Join(root, spec.SecretDir), &theirs); err != nil {
		return false, fmt.Errorf("look at the secrets that %s sees: %w", replica, err)
	}
	return ours.Dev == theirs.Dev && ours.Ino == theirs.Ino, nil
}

// Withdraw removes the replica's tmpfs.
func (d *Deliverer) Withdraw(ctx context.Context, replica string) error {
	if err := checkReplica(replica); err != nil {
		return err
	}
	defer d.replicas.Lock(replica)()
	if err := ctx.Err(); err != nil {
		return err
	}
	defer d.lookAgain()
	dir := filepath.Join(d.dir, replica)
	if err := unmount(dir); err != nil {
		return fmt.Errorf("withdraw secrets of %s: %w", replica, err)
	}
	if err := fault.Do("secrets directory remove", func() error { return os.RemoveAll(dir) }); err != nil {
		return fmt.Errorf("withdraw secrets of %s: %w", replica, err)
	}
	return nil
}

// checkReplica refuses names that would leave the directory.
func checkReplica(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q isn't a replica's name: %w", name, spec.ErrRefused)
	}
	return nil
}
