// Package inside is the part of the engine that runs within a container, as the
// program dunnage-init: the first process (Init), what holds a standard input open
// (HoldInput), what adds secret variables (AddEnv), and the prober (Serve), which runs the health checks that the
// agent asks for through a pipe. It imports little, because every container
// that needs it pays for its memory.
package inside
