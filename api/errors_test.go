package api

import (
	"errors"
	"fmt"
	"testing"

	"dunnage/spec"
)

func TestText(t *testing.T) {
	held := fmt.Errorf("port 80 is held: %w", spec.ErrRefused)
	for want, err := range map[string]error{
		"port 80 is held":                      held,
		"deploy: port 80 is held":              fmt.Errorf("deploy: %w", held),
		"port 80 is held\nno volume":           errors.Join(held, errors.New("no volume"), spec.ErrRefused),
		"it broke off: EOF":                    fmt.Errorf("it broke off: %w", errors.Join(errors.New("EOF"), spec.ErrUnavailable)),
		"containerd: unavailable":              fmt.Errorf("containerd: %w", spec.ErrUnavailable),
		"kind is missing":                      fmt.Errorf("kind is missing: %w", ErrInvalid),
		"web: it said: refused":                errors.New("web: it said: refused"),
		"image x: not found":                   fmt.Errorf("image x: %w", spec.ErrNotFound),
		"refused":                              spec.ErrRefused,
		"connect: connection refused, refused": errors.New("connect: connection refused, refused"),
	} {
		if got := Text(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		// The identity travels all the same.
		if wire := wireError(err); wire.Message != want || errors.Is(wire, spec.ErrRefused) != errors.Is(err, spec.ErrRefused) {
			t.Errorf("over the wire: %+v", wire)
		}
	}
}
