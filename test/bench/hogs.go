package main

import "context"

// hogsFile is one container that takes all it can get of memory, CPU,
// processes and files, within limits of the usual kind.
const hogsFile = `name: hogs
services:
  hog:
    image: example.org/stack-nginx:1
    command:
      - bash
      - -c
      - |
        exec 2>/dev/null
        (while :; do tail /dev/zero; done) &
        (while :; do :; done) & (while :; do :; done) &
        (i=10; while :; do eval "exec $$i</dev/null" && i=$$((i+1)); done) &
        (bomb() { bomb | bomb & }; while :; do bomb; done) &
        sleep 100000
    stop_grace_period: 1s
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 100}}}
    ulimits: {nofile: 1024}
    x-dunnage: {drain: 0s}
`

func (b *bench) hogs(ctx context.Context) error {
	return b.beside(ctx, beside{"hogs", hogsFile, "a hog of memory, CPU, processes and files", 3})
}
