package orchestrator

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// tellCollected makes an event of what a collection has removed. Why is said of
// one that isn't the usual: "because ...", "to make room ...".
func (l *Loop) tellCollected(items []spec.DiskItem, why string) {
	var use spec.DiskUse
	for _, i := range items {
		use.Add(i.DiskUse)
	}
	text := fmt.Sprintf("%s and %s that nobody needed", spec.Bytes(use.Bytes), counted(int(use.Inodes), "inode"))
	if why != "" {
		text += ", " + why
	}
	text += ": " + collectedNames(items)
	l.cfg.Log.Info("collected what nobody needs", "bytes", use.Bytes, "inodes", use.Inodes, "what", text)
	l.events.add(spec.Event{Kind: spec.EventCollected, Message: text})
}

// collectedNames names the first few of each kind.
func collectedNames(items []spec.DiskItem) string {
	var images, rest, logs, layers []string
	for _, i := range items {
		switch {
		case i.Kind == spec.DiskLogs:
			logs = append(logs, i.Name)
		case i.Kind == spec.DiskWritable:
			layers = append(layers, i.Name)
		case strings.HasPrefix(i.Name, "of "), strings.HasPrefix(i.Name, "shared by "):
			rest = append(rest, "layers "+i.Name)
		case strings.HasPrefix(i.Name, "download of "):
			rest = append(rest, i.Name)
		default: // compressed and unpacked are two items
			images = append(images, i.Name)
		}
	}
	var parts []string
	for _, g := range []struct {
		what  string
		names []string
	}{{"images ", images}, {"", rest}, {"logs of ", logs}, {"writable layers of ", layers}} {
		slices.Sort(g.names)
		g.names = slices.Compact(g.names)
		if len(g.names) == 0 {
			continue
		}
		const most = 10
		text := g.what + strings.Join(g.names[:min(len(g.names), most)], ", ")
		if more := len(g.names) - most; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
