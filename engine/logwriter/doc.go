// Package logwriter is the form of a replica's log on disk, and what writes it:
// lines in the format of Kubernetes' container runtime interface, which log
// shippers read,
//
//	2026-11-22T02:10:38.123456789Z stdout F text
//
// in a file that is rotated by size, and compressed later. The tag is F for a
// whole line (or the last part of a long one) and P for a part that goes on.
//
// The package is cmd/dunnage-log's, of which one runs for every container: it
// uses only the standard library, and of that little. Importing package spec
// alone would cost each of them 2 MB.
package logwriter
