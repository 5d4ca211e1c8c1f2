package main

import (
	"io/fs"
	"os"
	"time"
)

// pipePatience is how long a pipe may keep a command waiting without a word. What
// writes into it may take its time; a FIFO may have nobody who ever does.
const pipePatience = 3 * time.Second

// tellOfPipes says which of the files are pipes that keep the command waiting, until
// the returned function is called.
func (p *program) tellOfPipes(files ...string) (stop func()) {
	var waits []*time.Timer
	for _, file := range files {
		if info, err := os.Stat(p.absolute(file)); err != nil || info.Mode()&fs.ModeNamedPipe == 0 { // one of the shell's <(...) is one too
			continue
		}
		waits = append(waits, time.AfterFunc(pipePatience, func() {
			p.warn("%s is a pipe: still waiting for what is written into it", file)
		}))
	}
	return func() {
		for _, w := range waits {
			w.Stop()
		}
	}
}
