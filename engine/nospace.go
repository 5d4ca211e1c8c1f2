package engine

import (
	"context"
	"errors"
	"strings"
	"syscall"
)

var errNoSpace = errors.New("no space is left on the disk, or no inode")

// noSpace reports whether a disk is full, ours or containerd's, which says so in
// words.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
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
