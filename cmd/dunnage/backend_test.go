package main

import (
	"errors"
	"testing"

	"dunnage/spec"
)

func TestNeededImage(t *testing.T) {
	err := error(&neededImage{ref: "example.org/hello:v1", users: []string{"hello release 1", "hello release 3"}})
	if got, want := err.Error(), "remove image example.org/hello:v1: needed by hello release 1, hello release 3"; got != want || !errors.Is(err, spec.ErrRefused) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := hintOf(err), "releases keep their images, so that a rollback needs no registry; `dunnage history -p hello` lists those that stay, `dunnage down --forget -p hello` ends the project and drops them all"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
