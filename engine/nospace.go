package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"dunnage/spec"
)

// What to do about a full disk, and about one that has no inodes.
const (
	roomHint  = "`dunnage df` shows what takes the room, `dunnage gc` removes what nobody needs"
	inodeHint = "`dunnage df` counts inodes too, `dunnage gc` removes what nobody needs, `du --inodes -x %s | sort -n | tail` shows where the most files are"
)

// noSpace reports whether a disk is full, ours or containerd's, which says so in
// words.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// withRoom does what must be possible even on a full disk, and what is safe to do
// again: if it meets the end of the disk, the ballast is given up for a second try.
func (e *Engine) withRoom(do func() error) error {
	err := do()
	if err == nil || !noSpace(err) {
		return err
	}
	e.keepBallast()
	if err = do(); err != nil {
		return sayNoSpace(err)
	}
	return nil
}

// sayNoSpace says of an error that comes from a full disk that it does, and what to
// do, before the path that containerd has met it at.
func sayNoSpace(err error) error {
	if !noSpace(err) {
		return err
	}
	hint, full := fullDisk(err)
	return fmt.Errorf("%w; %s: %w", full, hint, err)
}

// fullDisk says what to do about a full disk, and is spec.ErrNoSpace with what the
// disk has left, where the cause names a path on it. The kernel has one error for
// bytes and for inodes: it is for those of which the smaller share is left.
func fullDisk(cause error) (hint string, full error) {
	d, ok := fullFilesystem(cause)
	if !ok {
		return roomHint, spec.ErrNoSpace
	}
	bytes := fmt.Sprintf("%s of %s", spec.Bytes(d.Free), spec.Bytes(d.Size))
	if d.Inodes > 0 && float64(d.FreeInodes)/float64(d.Inodes) < float64(d.Free)/float64(d.Size) {
		return fmt.Sprintf(inodeHint, d.Dir), fmt.Errorf("%w: the file system of %s has %d of %d inodes free, and %s: it has too many files, not too much data",
			spec.ErrNoSpace, d.Dir, d.FreeInodes, d.Inodes, bytes)
	}
	return roomHint, fmt.Errorf("%w: the file system of %s has %s free", spec.ErrNoSpace, d.Dir, bytes)
}

// atPath finds the path that has met a full disk in what containerd says.
var atPath = regexp.MustCompile(`(/[^\s:]+): ` + regexp.QuoteMeta(syscall.ENOSPC.Error()))

// fullFilesystem is the one of the path that the cause names, by its mount point.
// Not ok: it names none, or one of the kernel's own.
func fullFilesystem(cause error) (d spec.Filesystem, ok bool) {
	found := atPath.FindStringSubmatch(cause.Error())
	if found == nil {
		return d, false
	}
	dir := found[1]
	for ; ; dir = filepath.Dir(dir) { // a temporary file is gone by now
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
	}
	d, dev, err := filesystem(dir)
	for err == nil && d.Dir != "/" {
		above, other, aboveErr := filesystem(filepath.Dir(d.Dir))
		if aboveErr != nil || other != dev {
			break
		}
		d = above
	}
	return d, err == nil && d.Size > 0
}

// dropAll throws away what the pull has begun to download: on a full disk it is in
// everybody's way, and for a day nobody else would remove it.
func (p *pull) dropAll(ctx context.Context) {
	store := p.engine.client.ContentStore()
	downloads, err := store.ListStatuses(ctx)
	if err != nil { // a collection removes it later
		return
	}
	for _, d := range downloads {
		if _, ours := p.layers.Load(d.Ref[strings.LastIndexByte(d.Ref, '-')+1:]); ours {
			_ = store.Abort(ctx, d.Ref) // likewise
		}
	}
}

// collectDropped frees what a load or a pull has let go of that met the end of the
// disk. What can't be freed now is by a later collection.
func (e *Engine) collectDropped(ctx context.Context) {
	if err := e.askToCollect(ctx); err != nil {
		e.cfg.Log.Warn("free what didn't fit on the disk", "error", err)
	}
}
