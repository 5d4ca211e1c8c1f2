package spec

import (
	"fmt"
	"strings"
	"time"
)

// DiskKind says what takes room on disk.
type DiskKind string

// The kinds of what dunnage keeps on disk.
const (
	DiskContent  DiskKind = "content"  // compressed layers, configurations and manifests of images
	DiskLayers   DiskKind = "layers"   // images, unpacked
	DiskWritable DiskKind = "writable" // what a replica has written over its image
	DiskLogs     DiskKind = "logs"
	DiskState    DiskKind = "state"   // the store, containerd's database, the agent's files
	DiskVolumes  DiskKind = "volumes" // the users' data: shown, and never collected
)

// DiskKinds are all of them.
var DiskKinds = []DiskKind{DiskContent, DiskLayers, DiskWritable, DiskLogs, DiskState, DiskVolumes}

// Counted reports whether the budget bounds it.
func (k DiskKind) Counted() bool { return k != DiskVolumes }

// DiskUse is what the file system has allocated, not what the files' lengths say.
type DiskUse struct {
	Bytes  int64 `json:"bytes"`
	Inodes int64 `json:"inodes"`
}

// Add counts what o counts too.
func (u *DiskUse) Add(o DiskUse) {
	u.Bytes += o.Bytes
	u.Inodes += o.Inodes
}

// DiskItem is one thing that takes room. Something that several releases share is
// one item with all of them.
type DiskItem struct {
	Kind    DiskKind `json:"kind"`
	Name    string   `json:"name"` // an image's reference or digest, a replica, a volume, a file
	Project string   `json:"project,omitempty"`
	Service string   `json:"service,omitempty"`
	// Holders need it, sorted: "shop release 3", "shop-web-1a2b3c4d-1", "deploy in progress".
	// Nobody = gc may collect it.
	Holders []string `json:"holders,omitempty"`
	// Releases of Project need it, and nothing of other projects does; sorted.
	Releases []int `json:"releases,omitempty"`
	// Partly is set while it is counted for the first time: it takes more.
	Partly bool `json:"partly,omitempty"`
	DiskUse
}

// Filesystem is what a file system has, as statfs says. Free is what root may
// use, Available what everybody may.
type Filesystem struct {
	Dir        string `json:"dir"`
	Size       int64  `json:"size"`
	Free       int64  `json:"free"`
	Available  int64  `json:"available"`
	Inodes     int64  `json:"inodes,omitempty"` // 0 = the file system doesn't count them
	FreeInodes int64  `json:"free_inodes,omitempty"`
}

// DiskReport is what `df` shows.
type DiskReport struct {
	At          time.Time    `json:"at"`
	Filesystems []Filesystem `json:"filesystems"`
	Budget      int64        `json:"budget,omitempty"` // 0 = none
	Counted     DiskUse      `json:"counted"`          // of all that the budget bounds
	Collectable DiskUse      `json:"collectable"`      // of what gc would remove
	Items       []DiskItem   `json:"items"`            // sorted by kind, project and name
	// Problem is why some of it isn't counted; empty = all is.
	Problem string `json:"problem,omitempty"`
	// Missing are the kinds of which nothing is counted because containerd doesn't
	// answer: Counted and Collectable leave them out, and Items has none of them.
	Missing []DiskKind `json:"missing,omitempty"`
}

// UncountedError says of which kinds nothing is counted, and why.
type UncountedError struct {
	Kinds []DiskKind
	Err   error
}

func (e *UncountedError) Error() string { return "count images and layers: " + e.Err.Error() }
func (e *UncountedError) Unwrap() error { return e.Err }

// WaitingImage is one that no release and no replica has, and that a deploy may be
// about to need.
type WaitingImage struct {
	Ref   string    `json:"ref"`
	Until time.Time `json:"until"` // when its grace ends; a collection that has less patience takes it earlier
}

// WaitingText names the first few: "a:1 until 2 January 15:04 UTC, b:1 until 2
// January 15:09 UTC and 3 more".
func WaitingText(images []WaitingImage) string {
	var parts []string
	for _, i := range images[:min(len(images), 5)] {
		parts = append(parts, i.Ref+" until "+i.Until.UTC().Format("2 January 15:04 UTC"))
	}
	text := strings.Join(parts, ", ")
	if more := len(images) - len(parts); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Collection is what gc removed, or, as a rehearsal, would remove.
type Collection struct {
	Items []DiskItem `json:"items"`
	Freed DiskUse    `json:"freed"` // what the file systems have more free than before, 0 if less, with all that others wrote and deleted; a rehearsal's is the sum of Items
	// Waiting are images that stay only until their grace ends, those that go first first.
	Waiting []WaitingImage `json:"waiting,omitempty"`
	// Short is how the disk is over its budget or nearly full, for which images and
	// logs go sooner; empty = it isn't, or gc was told to wait for nothing.
	Short string `json:"short,omitempty"`
	// Problem is what couldn't be removed; empty = all was.
	Problem string `json:"problem,omitempty"`
}

// SmallestDisk bounds Service.Disk from below: less than 1 MiB is written by
// programs that write nothing, such as a shell that edits a file.
const SmallestDisk = 1 << 20

// How long images stay that somebody loaded or pulled and that no release has
// had since, because a deploy may be about to need them.
const (
	ImageGrace      = 24 * time.Hour
	ImageGraceShort = 10 * time.Minute // when the disk is over its budget
)

// OldLogs is how many generations of a service's removed replicas keep their logs:
// enough to read why a deploy failed, of all its replicas, and what the ones before
// wrote. Each takes at most what the logs of those that run may take.
const (
	OldLogs      = 5
	OldLogsShort = 1 // when the disk is over its budget
)

// CollectRequest says how far a collection goes. What a kept release, a replica or an
// operation in progress needs stays whatever it says.
type CollectRequest struct {
	Rehearse bool
	// Grace is how long images stay that no release has had since they were
	// loaded or pulled.
	Grace time.Duration
	// Logs is how many generations of a service's removed replicas keep their logs.
	Logs int
	// Replica reports whether the store knows the replica: its layer stays, even
	// without a container.
	Replica func(id string) bool
}

// UsualCollection is a request with the patience that the agent has with images and
// logs: less of it while the disk is short, over its budget or nearly full.
func UsualCollection(short bool) CollectRequest {
	if short {
		return CollectRequest{Grace: ImageGraceShort, Logs: OldLogsShort}
	}
	return CollectRequest{Grace: ImageGrace, Logs: OldLogs}
}

// Bytes is a number of bytes as people read it: "1.5 GiB".
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/unit, "KMGT"
	for f >= unit && len(units) > 1 {
		f, units = f/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}
