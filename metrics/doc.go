// Package metrics shows what the agent knows as Prometheus' metrics. Nothing is
// gathered until somebody asks: every answer is made of snapshots that are kept
// anyway, and of what the kernel counts. What a series may be named by is bounded:
// project, service, a replica's number, and words of a fixed list.
package metrics
