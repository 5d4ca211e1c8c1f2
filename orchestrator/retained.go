package orchestrator

import "context"

// letGo lets go of images that were retained for releases which aren't
// recorded, nor of an operation at work: an agent that dies between the two leaves them, and a project that
// is never deployed again would keep them for ever. Once after a start is
// enough, and after unpin failed. Only Run's goroutine retains, so that no release is on its way in
// here meanwhile.
func (l *Loop) letGo(ctx context.Context) {
	if l.letGone {
		return
	}
	err := l.trim()
	if err != nil {
		l.cfg.Log.Warn("drop releases beyond those that are kept", "error", err)
		return // the next look tries again
	}
	names, err := l.cfg.Images.Retained(ctx)
	known := map[string]bool{}
	for _, id := range l.ops.atWork() { // begun since the start
		known[holdName(id)] = true
	}
	for _, project := range l.state.projectNames() {
		for _, r := range l.state.history(project) {
			known[retainName(project, r.Number)] = true
		}
	}
	for _, name := range names {
		if err == nil && !known[name] {
			err = l.cfg.Images.Retain(ctx, name, nil)
		}
	}
	if err != nil {
		l.cfg.Log.Warn("let go of images that no release uses", "error", err)
		return // the next look tries again
	}
	l.letGone = true
}
