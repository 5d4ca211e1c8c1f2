package e2e

import (
	"os"
	"strings"
	"testing"
)

// The images of a project that is gone, of which no release ever ran, can be freed.
func TestForgottenProjectFreesItsImages(t *testing.T) {
	h := newHost(t)
	broken := strings.Replace(hello("v1", 1, ""), "name: hello", "name: gone", 1)
	broken = strings.Replace(broken, ":v1", ":v1\n    entrypoint: [/nowhere]", 1)
	if r := h.deploy(broken); r.code == 0 {
		t.Fatalf("a release that never answers was deployed: %+v", r)
	}
	h.must("down", "-p", "gone", "--volumes")
	image := "example.org/hello:v1"
	if r := h.run(nil, "image", "rm", image); r.code == 0 || !strings.Contains(r.stderr, "dunnage down --forget -p gone") {
		t.Errorf("an image that a release keeps: %+v", r)
	}
	if got := h.must("down", "-p", "gone", "--forget"); !strings.Contains(got, "forgot release 1, with its receipts") {
		t.Errorf("down --forget says %q", got)
	}
	if r := h.run(nil, "history", "-p", "gone"); r.code == 0 {
		t.Errorf("history: %+v", r)
	}
	h.must("gc", "--all")
	if got := h.must("image", "ls"); strings.Contains(got, image) {
		t.Errorf("the image is still there:\n%s", got)
	}
	if r := h.run(nil, "down", "-p", "gone", "--forget"); r.code != 0 || !strings.Contains(r.stderr, "nothing to do") {
		t.Errorf("once more: %+v", r)
	}
}

// Of a project that was forgotten, nothing is left that doctor finds once its logs are
// collected.
func TestForgottenProjectLeavesNothing(t *testing.T) {
	h := newHost(t)
	h.mustDeploy(hello("v1", 1, ""))
	h.must("down", "-p", "hello", "--forget")
	for _, then := range []string{"down --forget", "gc --all"} { // the logs are kept until the latter
		if found, _ := h.doctor(); !found["leftovers"][0].OK {
			t.Errorf("leftovers after %s: %+v", then, found["leftovers"])
		}
		h.must("gc", "--all")
	}
	if logs, err := os.ReadDir(h.lab.Path("state", "logs")); err != nil || len(logs) > 0 {
		t.Errorf("logs: %v %v", logs, err)
	}
}
