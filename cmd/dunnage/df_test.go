package main

import (
	"strings"
	"testing"

	"dunnage/spec"
)

// TestDfWithoutImages: what isn't known isn't shown as nothing, and no share of
// the budget is made of it.
func TestDfWithoutImages(t *testing.T) {
	r := spec.DiskReport{
		Budget: 1 << 30, Counted: spec.DiskUse{Bytes: 1 << 20, Inodes: 2}, Problem: "count images and layers: containerd hangs",
		Missing: []spec.DiskKind{spec.DiskContent, spec.DiskLayers, spec.DiskWritable},
		Items: []spec.DiskItem{
			{Kind: spec.DiskLogs, Name: "shop-web-1", Project: "shop", Releases: []int{1}, Holders: []string{"shop release 1"}, DiskUse: spec.DiskUse{Bytes: 1 << 20, Inodes: 2}},
		},
	}
	var got []string
	for _, row := range dfTable(r).rows {
		got = append(got, strings.Join(row.cells, "|"))
	}
	want := "shop|release 1|?|?|1.0 MiB|||1.0 MiB+|2+\ntotal||?|?|1.0 MiB|||1.0 MiB+|2+"
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	sum := strings.Join(dfSummary(r), "\n")
	if want := "in use without volumes, and without content, layers, writable, which aren't known now: 1.0 MiB\nnot all of it could be counted: count images and layers: containerd hangs"; sum != want {
		t.Errorf("got\n%s\nwant\n%s", sum, want)
	}
}
