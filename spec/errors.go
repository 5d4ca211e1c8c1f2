package spec

import (
	"errors"
	"slices"
	"strings"
)

// Errors that any part wraps and another part acts on.
var (
	// ErrNotFound: the named thing isn't there. On the way down it is success.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the other side doesn't answer; trying again later may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrRefused: the request is understood but can't be met or would do harm;
	// nothing was changed.
	ErrRefused = errors.New("refused")
	// ErrNoSpace: what was to be made doesn't fit on the disk, which has no bytes left
	// or no inodes; where something is removed it does.
	ErrNoSpace = errors.New("the disk is full")
)

// Text is err for people: without the sentinels that errors.Is looks for, where
// they say nothing that the text doesn't: ErrRefused, ErrUnavailable where it
// was joined, and those of the caller.
func Text(err error, sentinels ...error) string {
	text := err.Error()
	for _, s := range append(sentinels, ErrRefused) {
		if errors.Is(err, s) {
			text = withoutLine(strings.ReplaceAll(text+"\n", ": "+s.Error()+"\n", "\n"), s.Error())
		}
	}
	if errors.Is(err, ErrUnavailable) { // after a colon it is the news: "containerd: unavailable"
		text = withoutLine(text, ErrUnavailable.Error())
	}
	return text
}

// withoutLine takes a joined sentinel out, unless nothing else is said.
func withoutLine(text, sentinel string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if kept := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l == sentinel }); len(kept) > 0 {
		lines = kept
	}
	return strings.Join(lines, "\n")
}
