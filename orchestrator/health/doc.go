// Package health looks at running replicas on a schedule and says of each
// whether it is starting, healthy or unhealthy. What one result means is
// decided by the pure type record; Monitor keeps one goroutine a probe.
package health
