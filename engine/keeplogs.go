package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// logsCheck is how often the engine looks whether the logs' directory is still there.
const logsCheck = 2 * time.Second

// keepLogs makes the logs' directory again when somebody has removed it. The log
// writers can't: they don't know whether the file system below it is still the
// one that it belongs on. home is the state directory as it was in the beginning.
func (e *Engine) keepLogs(home fs.FileInfo) {
	told := ""
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(logsCheck):
		}
		made, err := e.cfg.remakeLogs(home)
		if made {
			e.cfg.Log.Warn("somebody removed the logs' directory; it is there again, and what replicas print from now on is kept", "directory", e.cfg.logsDir())
		}
		if text := fmt.Sprint(err); text != told { // once, and not every two seconds
			if told = text; err != nil {
				e.cfg.Log.Error("make the logs' directory again; until then what replicas print is lost", "error", err)
			}
		}
	}
}

func (c Config) remakeLogs(home fs.FileInfo) (made bool, err error) {
	// It is asked first, since on a file system that somebody has frozen Mkdir waits.
	if _, err := os.Lstat(c.logsDir()); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	now, err := os.Stat(c.StateDir)
	if err != nil {
		return false, err
	}
	if !os.SameFile(home, now) {
		return false, fmt.Errorf("%s isn't the directory that the agent was started on; mount or move that one there, or start the agent again", c.StateDir)
	}
	err = os.Mkdir(c.logsDir(), 0o711)
	return err == nil, err
}
