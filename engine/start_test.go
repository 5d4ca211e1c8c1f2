package engine

import (
	"errors"
	"testing"
)

// Texts of containerd 1.6 whose clean-up after a dead shim met the next start.
func TestCleanedAway(t *testing.T) {
	for text, want := range map[string]bool{
		"failed to start shim: start failed: chdir /run/x: no such file or directory":                                                            true,
		"failed to create shim task: mkdir /run/containerd/io.containerd.runtime.v2.task/p/p-web-1/rootfs: no such file or directory: not found": true,
		`failed to create shim task: OCI runtime create failed: exec: "/x": stat /x: no such file or directory: unknown`:                         false,
		"failed to create shim task: ttrpc: closed: unknown":                                                                                     true,
		"failed to start shim: permission denied":                                                                                                false,
	} {
		if got := cleanedAway(errors.New(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if cleanedAway(nil) {
		t.Error("nothing went wrong")
	}
}
