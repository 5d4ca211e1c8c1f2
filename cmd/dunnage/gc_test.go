package main

import (
	"bytes"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestFreedAgrees: what gc says it freed is what --dry-run said of the same
// things. The file systems' own figure stands beside it where it is another.
func TestFreedAgrees(t *testing.T) {
	items := []spec.DiskItem{
		{Kind: spec.DiskContent, Name: "old:1", DiskUse: spec.DiskUse{Bytes: 5 << 20, Inodes: 4}},
		{Kind: spec.DiskLayers, Name: "old:1", DiskUse: spec.DiskUse{Bytes: 10 << 20, Inodes: 300}},
	}
	sum := spec.DiskUse{Bytes: 15 << 20, Inodes: 304}
	for _, c := range []struct {
		freed    spec.DiskUse
		rehearse bool
		want     string
	}{
		{sum, true, "would free 15.0 MiB and 304 inodes"},
		{sum, false, "freed 15.0 MiB and 304 inodes"},
		{spec.DiskUse{Bytes: 12 << 20, Inodes: 290}, false, "freed 15.0 MiB and 304 inodes; the file systems have 12.0 MiB and 290 inodes more free than before, since others write too"},
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		err := p.printCollection(spec.Collection{Items: items, Freed: c.freed}, c.rehearse)
		if _, got, _ := strings.Cut(out.String(), "\n\n"); err != nil || got != c.want+"\n" {
			t.Errorf("%+v: %q, %v, want %q", c.freed, got, err, c.want)
		}
	}
}
