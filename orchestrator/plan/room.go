package plan

import (
	"fmt"
	"strings"

	"dunnage/spec"
)

// WorkRoom is what a deploy needs beside its images: containerd's and the store's
// notes, hosts files, logs and the first writes of its replicas.
var WorkRoom = spec.DiskUse{Bytes: 16 << 20, Inodes: 256}

// Space is what there is for a deploy or a load.
type Space struct {
	// Disks are the file systems: the first has the state, and those after it,
	// or it too where there is none, the images.
	Disks  []spec.Filesystem
	Used   int64 // of the budget
	Budget int64 // 0 = none
}

// Lack is what a deploy or a load is short of.
type Lack struct {
	spec.DiskUse        // that is missing
	Budget       bool   // of the budget, not of a file system
	Where        string // what there is, as text: "/var/lib/dunnage has 3.0 GiB of 40.0 GiB free"
}

// Lacks lists what there isn't enough of for images that take so much. Root's
// reserve is left alone: it is what a full host lives on.
func (s Space) Lacks(images spec.DiskUse) []Lack {
	var out []Lack
	for i, d := range s.Disks {
		need := images
		if i == 0 {
			need = WorkRoom
			if len(s.Disks) == 1 {
				need.Add(images)
			}
		}
		if short := need.Bytes - d.Available; short > 0 {
			out = append(out, Lack{DiskUse: spec.DiskUse{Bytes: short}, Where: fmt.Sprintf("the file system of %s has %s of %s free", d.Dir, spec.Bytes(d.Available), spec.Bytes(d.Size))})
		}
		if short := need.Inodes - d.FreeInodes; short > 0 && d.Inodes > 0 {
			out = append(out, Lack{DiskUse: spec.DiskUse{Inodes: short}, Where: fmt.Sprintf("the file system of %s has %d of %d inodes free", d.Dir, d.FreeInodes, d.Inodes)})
		}
	}
	// What is stored already is counted: a deploy that brings nothing has no use for
	// more of the budget.
	if left := s.Budget - s.Used; s.Budget > 0 && images.Bytes > 0 && images.Bytes > left {
		out = append(out, Lack{DiskUse: spec.DiskUse{Bytes: images.Bytes - left}, Budget: true, Where: fmt.Sprintf("%s of the budget of %s are in use", spec.Bytes(s.Used), spec.Bytes(s.Budget))})
	}
	return out
}

// Enough reports whether what collecting frees makes up for all that is lacking.
func Enough(lacks []Lack, freed spec.DiskUse) bool {
	for _, l := range lacks {
		if l.Bytes > freed.Bytes || l.Inodes > freed.Inodes {
			return false
		}
	}
	return true
}

// Needs says what images take, as text.
func Needs(download int64, images spec.DiskUse) string {
	if images.Bytes == 0 {
		return fmt.Sprintf("it needs %s and %d inodes to work with", spec.Bytes(WorkRoom.Bytes), WorkRoom.Inodes)
	}
	return fmt.Sprintf("its images need about %s and %d inodes (%s to download, the rest unpacked)", spec.Bytes(images.Bytes), images.Inodes, spec.Bytes(download))
}

// LoadNeeds says what an archive's new layers take, as text.
func LoadNeeds(stored int64, images spec.DiskUse) string {
	return fmt.Sprintf("its new layers need about %s and %d inodes (%s as they are in the archive, the rest unpacked)", spec.Bytes(images.Bytes), images.Inodes, spec.Bytes(stored))
}

// Short says what is lacking, as text.
func Short(lacks []Lack) string {
	var words []string
	for _, l := range lacks {
		words = append(words, l.Where)
	}
	return strings.Join(words, ", and ")
}
