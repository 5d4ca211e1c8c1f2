package spec

import "errors"

// Errors that any part wraps and another part acts on.
var (
	// ErrNotFound: the named thing isn't there. On the way down it is success.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the other side doesn't answer; trying again later may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrRefused: the request is understood but can't be met or would do harm;
	// nothing was changed.
	ErrRefused = errors.New("refused")
)
