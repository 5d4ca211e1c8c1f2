package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// settling is how long after it was unpacked an image is still doubted when the
// power fails. It was synced before it counted; this is for disks that report
// as written what is still in their cache, and for a cut before that sync.
const settling = 10 * time.Minute

// recentImage is one that was unpacked lately, or was about to be.
type recentImage struct {
	Ref  string    `json:"ref"`
	Boot string    `json:"boot"` // the kernel's boot id at that time
	At   time.Time `json:"at"`
}

// recentImages notes, on disk and before anything is unpacked, which images a
// power cut could damage. What an earlier boot left there is in doubt until it
// has been verified.
type recentImages struct {
	path, boot string

	mu     sync.Mutex
	all    map[string]recentImage // by digest
	lost   error                  // why the notes can't be read: any image may be in doubt
	synced map[string]bool        // digests that this process has synced
	causes map[string]error       // of those in doubt that couldn't be mended
}

// openRecent reads the notes. What can't be read stays as it is until all images
// are noted as doubtful in its place.
func openRecent(stateDir, boot string) *recentImages {
	r := &recentImages{
		path: filepath.Join(stateDir, "images.recent"), boot: boot,
		all: map[string]recentImage{}, synced: map[string]bool{}, causes: map[string]error{},
	}
	_ = os.Remove(r.path + nextSuffix) // of an agent that was killed; else the next note replaces it
	b, err := regular.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	if err == nil {
		r.all, err = parseRecent(b)
	}
	if err != nil {
		r.lost = fmt.Errorf("read which images are recent in %s: %w", r.path, err)
		r.all = map[string]recentImage{}
	}
	return r
}

func parseRecent(b []byte) (map[string]recentImage, error) {
	var all map[string]recentImage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, errors.New("it is empty")
	}
	for dgst := range all {
		if _, err := digest.Parse(dgst); err != nil {
			return nil, fmt.Errorf("%q: %w", dgst, err)
		}
	}
	return all, nil
}

// lostNotes says why the notes can't be read; nil = they could be.
func (r *recentImages) lostNotes() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// doubtAll notes images, by digest, as doubtful in place of the notes that can't
// be read. Moved says where a directory is now that was in their place; empty =
// there was none.
func (r *recentImages) doubtAll(refs map[string]string) (moved string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == nil {
		return "", nil
	}
	if moved, err = r.makeWay(); err != nil {
		return "", err
	}
	next := make(map[string]recentImage, len(refs))
	for dgst, ref := range refs {
		next[dgst] = recentImage{Ref: ref, At: time.Now()} // no boot is this one
	}
	if err := r.save(next); err != nil {
		return moved, err
	}
	r.lost = nil
	return moved, nil
}

// makeWay moves a directory aside, which no file replaces. An empty file, which is
// no notes either, takes its place in the same instant: with nothing there, a crash
// would end all doubts.
func (r *recentImages) makeWay() (moved string, err error) {
	if info, err := os.Lstat(r.path); err != nil || !info.IsDir() {
		return "", nil // the new notes replace it
	}
	f, err := os.CreateTemp(filepath.Dir(r.path), filepath.Base(r.path)+".aside-")
	if err != nil {
		return "", fmt.Errorf("move %s aside: %w", r.path, err)
	}
	err = f.Close()
	if err == nil {
		err = fault.Do("recent images move aside", func() error {
			return unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, r.path, unix.RENAME_EXCHANGE)
		})
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("move %s aside, which is a directory: %w", r.path, err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// note keeps that the image is about to be unpacked.
func (r *recentImages) note(dgst, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if had, ok := r.all[dgst]; ok && (had.Boot != r.boot || time.Since(had.At) < settling/10) {
		return nil
	}
	delete(r.synced, dgst)
	next := r.settled()
	next[dgst] = recentImage{Ref: ref, Boot: r.boot, At: time.Now()}
	return r.save(next)
}

// settled is what is left of the notes by now.
func (r *recentImages) settled() map[string]recentImage {
	next := maps.Clone(r.all)
	maps.DeleteFunc(next, func(_ string, i recentImage) bool { return i.Boot == r.boot && time.Since(i.At) > settling })
	return next
}

// prune forgets what has settled.
func (r *recentImages) prune() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next := r.settled(); len(next) < len(r.all) {
		return r.save(next)
	}
	return nil
}

// verified ends the doubt about an image.
func (r *recentImages) verified(dgst string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.causes, dgst)
	if _, ok := r.all[dgst]; !ok {
		return nil
	}
	next := r.settled()
	delete(next, dgst)
	return r.save(next)
}

func (r *recentImages) save(next map[string]recentImage) error {
	b, err := json.Marshal(next)
	if err == nil {
		err = replaceDurably("recent images rename", r.path, string(b))
	}
	if err != nil {
		return fmt.Errorf("note which images are recent: %w", err)
	}
	r.all = next
	return nil
}

// doubted reports whether a power cut may have damaged the image, and under
// which name it came. Any may be damaged while the notes can't be read.
func (r *recentImages) doubted(dgst string) (ref string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.all[dgst]
	return i.Ref, r.lost != nil || ok && i.Boot != r.boot
}

// failed keeps why a doubted image couldn't be mended.
func (r *recentImages) failed(dgst string, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.causes[dgst] = cause
}

func (r *recentImages) cause(dgst string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.causes[dgst]
}

// Doubtful lists the images that a power cut may have damaged and that haven't
// been verified yet, sorted by name. While it can't be read which these are, it
// lists one without name and digest, which stands for all.
func (e *Engine) Doubtful() []spec.DoubtfulImage {
	r := e.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []spec.DoubtfulImage
	if r.lost != nil {
		out = append(out, spec.DoubtfulImage{})
	}
	for dgst, i := range r.all {
		if i.Boot == r.boot {
			continue
		}
		d := spec.DoubtfulImage{Ref: i.Ref, Digest: dgst}
		if err := r.causes[dgst]; err != nil {
			d.Error = err.Error()
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b spec.DoubtfulImage) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

// settle sees to it that an image that is found unpacked can be built upon: one
// that somebody has just unpacked is synced first, and one in doubt isn't given.
func (e *Engine) settle(ctx context.Context, ref, dgst string, unpacked time.Time) error {
	if _, doubted := e.recent.doubted(dgst); doubted {
		if cause := e.recent.cause(dgst); cause != nil {
			return fmt.Errorf("image %s: %w", ref, cause)
		}
		return fmt.Errorf("image %s is being verified, because the power was cut soon after it came; try again in a moment: %w", ref, spec.ErrUnavailable)
	}
	if e.recent.isSynced(dgst) || time.Since(unpacked) > settling {
		return nil
	}
	if err := e.noteRecent(ctx, dgst, ref); err != nil {
		return err
	}
	return e.syncImage(ctx, dgst)
}

// noteRecent notes that an image is about to be unpacked.
func (e *Engine) noteRecent(ctx context.Context, dgst, ref string) error {
	if _, err := e.doubtAll(ctx); err != nil {
		return err
	}
	if err := e.withRoom(func() error { return e.recent.note(dgst, ref) }); err != nil {
		return err
	}
	time.AfterFunc(settling+time.Second, func() {
		if e.ctx.Err() != nil {
			return
		}
		if err := e.recent.prune(); err != nil {
			e.cfg.Log.Warn("forget that an image is recent", "error", err)
		}
	})
	return nil
}

// doubtAll puts all stored images in doubt where the notes of recent ones can't be
// read: those with a name, those that releases hold, and those of containers. It
// returns what it has mended for that, as Verify does.
func (e *Engine) doubtAll(ctx context.Context) (mended []string, err error) {
	lost := e.recent.lostNotes()
	if lost == nil {
		return nil, nil
	}
	refs := map[string]string{}
	containers, err := e.client.ContainerService().List(ctx, ownedFilter)
	if err != nil {
		return nil, e.wrap(ctx, err, "list containers")
	}
	for _, c := range containers {
		if name, dgst, err := canonical(c.Image); err == nil && dgst != "" {
			refs[dgst.String()] = name
		}
	}
	manager := e.client.LeasesService()
	held, err := manager.List(ctx, `labels."`+labelRelease+`"`)
	if err != nil {
		return nil, e.wrap(ctx, err, "list leases")
	}
	for _, l := range held {
		resources, err := manager.ListResources(ctx, l)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, e.wrap(ctx, err, "list what %s retains", l.ID)
		}
		for _, r := range resources {
			if _, err := digest.Parse(r.ID); err == nil {
				refs[r.ID] = cmp.Or(refs[r.ID], r.ID)
			}
		}
	}
	list, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, e.wrap(ctx, err, "list images")
	}
	for _, img := range list {
		refs[img.Target.Digest.String()] = img.Name
	}
	moved, err := e.recent.doubtAll(refs)
	if moved != "" {
		mended = append(mended, fmt.Sprintf("%s was a directory, and is moved to %s; all images are verified, because it can't be told which came lately", e.recent.path, moved))
		e.cfg.Log.Warn("a directory was in the place of the notes which images are recent", "path", e.recent.path, "moved", moved)
	}
	if err != nil {
		return mended, err
	}
	e.cfg.Log.Warn("all images are verified, because it can't be told which came lately", "images", len(refs), "error", lost)
	return mended, nil
}

// syncImage writes unpacked images to disk, and remembers that.
func (e *Engine) syncImage(ctx context.Context, dgst ...string) error {
	if err := e.syncStore(ctx); err != nil {
		return err
	}
	e.recent.mu.Lock()
	defer e.recent.mu.Unlock()
	for _, d := range dgst {
		e.recent.synced[d] = true
	}
	return nil
}

func (r *recentImages) isSynced(dgst string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.synced[dgst]
}

// Settle is for a stop in good order: what this boot unpacked is written to disk
// once more, and not in doubt after the next one.
func (e *Engine) Settle(ctx context.Context) error {
	r := e.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(r.all)
	maps.DeleteFunc(next, func(_ string, i recentImage) bool { return i.Boot == r.boot })
	if len(next) == len(r.all) {
		return nil
	}
	if err := e.syncStore(ctx); err != nil {
		return err
	}
	return r.save(next)
}

// settleLoaded syncs the images that an archive brought, and mends those of them
// that were in doubt.
func (e *Engine) settleLoaded(ctx context.Context, loaded []spec.Image) error {
	var digests []string
	for _, img := range loaded {
		digests = append(digests, img.Digest)
	}
	if err := e.syncImage(ctx, digests...); err != nil {
		return err
	}
	for _, d := range digests {
		if _, err := e.Verify(ctx, d); err != nil {
			return err
		}
	}
	return nil
}
