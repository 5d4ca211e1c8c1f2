package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
)

// TestFreedAgrees: what gc says it freed is what --dry-run said of the same
// things. The file systems' own figure stands beside it where it is another, without a cause: nobody knows who wrote.
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
		{spec.DiskUse{Bytes: 12 << 20, Inodes: 290}, false, "freed 15.0 MiB and 304 inodes; the file systems have 12.0 MiB and 290 inodes more free than before"},
		{spec.DiskUse{}, false, "freed 15.0 MiB and 304 inodes; the file systems have no more free than before"},
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		err := p.printCollection(spec.Collection{Items: items, Freed: c.freed}, c.rehearse, false)
		if _, got, _ := strings.Cut(out.String(), "\n\n"); err != nil || got != c.want+"\n" {
			t.Errorf("%+v: %q, %v, want %q", c.freed, got, err, c.want)
		}
	}
}

// TestFreedOfNoList: files that no list has come free without an item.
func TestFreedOfNoList(t *testing.T) {
	for freed, want := range map[spec.DiskUse]string{
		{}:                          "nothing to remove: `dunnage df -v` says who needs what\n",
		{Bytes: 8 << 20, Inodes: 3}: "nothing to remove: `dunnage df -v` says who needs what; the file systems have 8.0 MiB and 3 inodes more free than before\n",
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		if err := p.printCollection(spec.Collection{Freed: freed}, false, false); err != nil || out.String() != want {
			t.Errorf("%+v: %q, %v, want %q", freed, out.String(), err, want)
		}
	}
}

// TestImagesThatWait: gc names the images that it leaves for a deploy, and until
// when, whether it removes something else or nothing.
func TestImagesThatWait(t *testing.T) {
	until := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	something := []spec.DiskItem{{Kind: spec.DiskLogs, Name: "shop-web-1"}}
	for _, c := range []struct {
		items         []spec.DiskItem
		rehearse, all bool
		short, hint   string
	}{
		{nil, false, false, "", "; `dunnage gc --all` doesn't wait"}, {nil, true, true, "", ""},
		{something, true, false, "", "; `dunnage gc --all` doesn't wait"}, {something, false, true, "", ""},
		{nil, true, false, "disk: 2 B are in use of a budget of 1 B", ", and no longer than 10 minutes, because 2 B are in use of a budget of 1 B; `dunnage gc --all` doesn't wait"},
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		err := p.printCollection(spec.Collection{Items: c.items, Waiting: []spec.WaitingImage{{Ref: "old:1", Until: until}}, Short: c.short}, c.rehearse, c.all)
		if want := "\nkept for a deploy: old:1 until 1 March 12:30 UTC" + c.hint + "\n"; err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%+v: %q, %v, want %q at the end", c, out.String(), err, want)
		}
	}
}

// TestWhyALogGoes: with --all the newest log of a removed replica goes as well,
// so that no later ones are the reason.
func TestWhyALogGoes(t *testing.T) {
	const why = "its replica is removed"
	for _, c := range []struct {
		short string
		all   bool
		want  string
	}{
		{"", true, why},
		{"", false, why + ", and it is older than those of the last 5 generations"},
		{"disk: 2 B are in use of a budget of 1 B", false, why + ", and it is older than those of the last generation"},
	} {
		var out bytes.Buffer
		p := program{stdout: &out}
		items := []spec.DiskItem{{Kind: spec.DiskLogs, Name: "shop-web-1"}}
		if err := p.printCollection(spec.Collection{Items: items, Short: c.short}, true, c.all); err != nil || !strings.Contains(out.String(), c.want+"\n") {
			t.Errorf("all %t, %s: %q, %v, want %q", c.all, c.short, out.String(), err, c.want)
		}
	}
}
