package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"dunnage/spec"
)

// roomHint is what to do about a full disk.
const roomHint = "`dunnage df` shows what takes the room, `dunnage gc` removes what nobody needs"

// noSpace reports whether a disk is full, ours or containerd's, which says so in
// words.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// sayNoSpace says of an error that comes from a full disk that it does, and what to
// do, before the path that containerd has met it at.
func sayNoSpace(err error) error {
	if !noSpace(err) {
		return err
	}
	return fmt.Errorf("%w; %s: %w", spec.ErrNoSpace, roomHint, err)
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
