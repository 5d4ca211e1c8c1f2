// Package testenv builds the real surroundings that tests run in: network
// namespaces that act as hosts, a private containerd, images made on the spot.
package testenv

import (
	"os"
	"testing"
)

// Root marks a test that changes kernel state. `make test` asks for such tests
// with DUNNAGE_ROOT_TESTS=1, and then one that can't run is a failure; a plain
// `go test` on a developer's machine leaves them out.
func Root(t testing.TB) {
	t.Helper()
	if os.Getenv("DUNNAGE_ROOT_TESTS") == "" {
		t.Skip("changes kernel state; run as root with DUNNAGE_ROOT_TESTS=1 (make test does)")
	}
	if os.Geteuid() != 0 {
		t.Fatal("DUNNAGE_ROOT_TESTS is set, but this is not root")
	}
}
