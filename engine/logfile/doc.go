// Package logfile is the form of a replica's log on disk: lines in the format
// of Kubernetes' container runtime interface, which log shippers read,
//
//	2026-11-22T02:10:38.123456789Z stdout F text
//
// in a file that is rotated by size. The tag is F for a whole line (or the
// last part of a long one) and P for a part that goes on. Writer writes it,
// for cmd/dunnage-log; Read reads, merges and follows it, for the agent.
//
// The package uses only the standard library, because one log writer runs for
// every container.
package logfile
