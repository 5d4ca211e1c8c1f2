package engine

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pipesHeld is how long pipes of an earlier agent are held open: a shim opens one
// after the other.
const pipesHeld = 5 * time.Second

// releasePipes opens both ends of all pipes below the directory, which an agent left
// that was killed while it started an exec. A shim may be waiting for the agent's
// ends, and answers nobody until it gives up, 30 s later: the next agent's first look
// would take as long. Once the pipes are removed, nobody can open them any more.
func releasePipes(dir string) {
	var held []*os.File
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type() != fs.ModeNamedPipe {
			return nil // what can't be opened isn't worse than before
		}
		if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			held = append(held, f)
		}
		return nil
	})
	if len(held) == 0 {
		return
	}
	time.AfterFunc(pipesHeld, func() {
		for _, f := range held {
			_ = f.Close()
		}
	})
}
