// Command dunnage-leakscan looks for secrets where they don't belong, with dunnage,
// Docker and podman side by side, each in network namespaces of its own with private
// daemons, and writes the table of docs/secrets.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"dunnage/test/lab"
	"dunnage/test/leak"
)

func main() {
	page := flag.String("o", "docs/secrets.md", "page with the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *page); err != nil {
		fmt.Fprintln(os.Stderr, "leakscan:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, page string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "dnleak") // short: it holds sockets
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(dir, "keeper.tar")
	if err := leak.WriteImage(ctx, archive); err != nil {
		return err
	}
	counts := map[string]map[leak.Place]int{}
	count := func(f *leak.Findings, columns ...string) {
		for _, c := range columns {
			counts[c] = map[leak.Place]int{}
			for _, p := range leak.Places {
				counts[c][p] = f.Count(c, p)
				if where := f.Where(c, p); len(where) > 0 {
					fmt.Printf("%s: %s: %d, the first %s\n", c, p, len(where), where[0])
				}
			}
		}
	}
	ours, err := dunnage(ctx, lab.New("dunnage-leak", filepath.Join(dir, "d"), 20), filepath.Join(root, "bin/dunnage"), archive)
	if err != nil {
		return err
	}
	docker, err := leak.Docker(ctx, lab.New("dunnage-leak-docker", filepath.Join(dir, "k"), 21), archive)
	if err != nil {
		return err
	}
	podman, err := leak.Podman(ctx, lab.New("dunnage-leak-podman", filepath.Join(dir, "p"), 22), archive)
	if err != nil {
		return err
	}
	columns := []string{leak.OurFiles, leak.OurEnv, leak.DockerEnv, leak.DockerCompose, leak.PodmanMount, leak.PodmanEnv}
	count(ours, columns[:2]...)
	count(docker.Findings, columns[2:4]...)
	count(podman.Findings, columns[4:]...)
	table := leak.Table(columns, func(c string, p leak.Place) int { return counts[c][p] })
	fmt.Print("\n", table)
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if text, err = leak.Replace(text, table); err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, text, 0o644)
}

// dunnage scans ourselves.
func dunnage(ctx context.Context, l *lab.Lab, program, archive string) (f *leak.Findings, err error) {
	a := lab.Agent{Lab: l, Program: program}
	if err := l.Up(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	if err := a.Start(ctx); err != nil {
		return nil, err
	}
	d := leak.NewDunnage(a, archive)
	return d.Findings, d.Run(ctx)
}
