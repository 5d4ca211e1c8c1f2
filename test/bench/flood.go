package main

import "context"

// floodFile is one container without limits that prints as fast as its log is
// read.
const floodFile = `name: flood
services:
  flood:
    image: example.org/stack-nginx:1
    command: [bash, -c, "exec yes $$(printf 'x%.0s' {1..100})"]
    stop_grace_period: 1s
    logging: {options: {max-size: 10m, max-file: "3"}}
    x-dunnage: {drain: 0s}
`

func (b *bench) flood(ctx context.Context) error {
	return b.beside(ctx, beside{"flood", floodFile, "a flood of log lines", 2})
}
