package secrets

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dunnage/internal/keyed"
	"dunnage/spec"
)

// Deliverer keeps a tmpfs for each replica at RunDir/secrets/REPLICA:
//
//	files/       what stands below spec.SecretDir in the container
//	other/N      a file for another path, numbered in the order of those paths
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
	var others []string
	for _, s := range c.Secrets {
		switch {
		case s.Target == "":
		case below(s.Target) != "":
			p.Dir = filepath.Join(base, filesDir)
		default:
			others = append(others, s.Target)
		}
		if s.Env != "" {
			p.Env = filepath.Join(base, envFile)
		}
	}
	for _, f := range c.Files {
		switch {
		case !f.Template:
		case below(f.Target) != "":
			p.Dir = filepath.Join(base, filesDir)
		default:
			others = append(others, f.Target)
		}
	}
	for target, name := range numbered(others) {
		if p.Files == nil {
			p.Files = map[string]string{}
		}
		p.Files[target] = filepath.Join(base, name)
	}
	return p
}

// below is the part of target after spec.SecretDir, empty if it stands elsewhere.
func below(target string) string {
	rest, ok := strings.CutPrefix(path.Clean(target), spec.SecretDir+"/")
	if !ok {
		return ""
	}
	return rest
}

// numbered gives each target its file, of which a container's path can't be the name.
func numbered(targets []string) map[string]string {
	slices.Sort(targets)
	names := map[string]string{}
	for i, t := range slices.Compact(targets) {
		names[t] = filepath.Join(otherDir, strconv.Itoa(i))
	}
	return names
}

// placed is a file of a delivery and where it goes on the tmpfs.
type placed struct {
	name string
	spec.DeliveredFile
}

// place finds the place of each file, the variables' among them.
func place(d spec.Delivery) ([]placed, error) {
	var others []string
	for _, f := range d.Files {
		if !path.IsAbs(f.Target) {
			return nil, fmt.Errorf("%q isn't an absolute path: %w", f.Target, spec.ErrRefused)
		}
		if below(f.Target) == "" {
			others = append(others, f.Target)
		}
	}
	names := numbered(others)
	var all []placed
	for _, f := range d.Files {
		name := names[f.Target]
		if rest := below(f.Target); rest != "" {
			name = filepath.Join(filesDir, rest)
		}
		f.Mode = cmp.Or(f.Mode&0o777, 0o400)
		all = append(all, placed{name, f})
	}
	if len(d.Env) == 0 {
		return all, nil
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
	files, err := place(want)
	if err != nil {
		return err
	}
	if len(want.Env) > 0 {
		defer files[len(files)-1].Value.Clear() // the copy that environ made
	}
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
	defer root.Close()
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
	if err := os.RemoveAll(dir); err != nil {
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
