package logfile

import "dunnage/engine/logwriter"

// The form of a log is its writer's.

// Streams of a container.
const (
	Stdout = logwriter.Stdout
	Stderr = logwriter.Stderr
)

// Line is one entry.
type Line = logwriter.Line

// Member is a part of a compressed log that can be unpacked by itself.
type Member = logwriter.Member

// MaxText is how much of a line stands in one entry.
const MaxText = logwriter.MaxText

// readSize is how much is read at once.
const readSize = 64 << 10

var (
	parseLine  = logwriter.ParseLine
	endsLine   = logwriter.EndsLine
	listOlder  = logwriter.ListOlder
	Strangers  = logwriter.Strangers
	Rotated    = logwriter.Rotated
	Compressed = logwriter.Compressed
	Members    = logwriter.Members
)
