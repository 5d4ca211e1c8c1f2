// Package orchestrator keeps what releases declare true: it looks at the
// world, lets package plan decide, and does one wave of actions, again and
// again. One goroutine, Loop.Run, owns every change.
//
// It reaches the world only through the interfaces of ports.go.
package orchestrator
