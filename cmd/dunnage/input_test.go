package main

import (
	"bufio"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// Whatever reads a file that turns out to be a FIFO says that it waits, and for what,
// and takes what comes.
func TestPipesAreWaitedForAloud(t *testing.T) {
	for name, read := range map[string]struct {
		content string
		from    func(p *program, path string) error
	}{
		"manifest": {"name: a\nservices: {a: {image: b}}\n", func(p *program, path string) error {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			for _, f := range globalFlags() {
				if err := f.Apply(flags); err != nil {
					return err
				}
			}
			if err := flags.Parse([]string{"-f", path}); err != nil {
				return err
			}
			c := cli.NewContext(nil, flags, nil)
			c.Context = t.Context()
			_, err := p.load(c, false)
			return err
		}},
		"value":  {"x", func(p *program, path string) error { _, err := p.fileValue(path); return err }},
		"values": {"A=x\n", func(p *program, path string) error { _, err := p.envFileValues(path); return err }},
		"archive": {"", func(p *program, path string) error {
			f, err := p.openArchive(path)
			if err != nil {
				return err
			}
			return f.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for pipePatience
			path := filepath.Join(t.TempDir(), "fifo")
			said, stderr, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer said.Close()
			defer stderr.Close()
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			p := &program{stderr: stderr, dir: t.TempDir()}
			done := make(chan error, 1)
			go func() { done <- read.from(p, path) }()
			if err := said.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || !strings.Contains(line, path+" is a pipe: still waiting") {
				t.Errorf("it says %q, %v", line, err)
			}
			w, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for the reader
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteString(read.content); err != nil {
				t.Error(err)
			}
			w.Close()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits on")
			}
		})
	}
}
