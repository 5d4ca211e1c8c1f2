package logwriter

import (
	"errors"
	"os"
	"time"
)

// Compressing saves disk and nothing else: what is kept is bounded by the size
// of the text. So it can wait until nobody needs the CPU, and is left out while
// files come and go faster than it would be worth.

// quiet is how long no file was rotated before the older ones are compressed.
const quiet = 2 * time.Second

// Compression is a Compress that goes on in another process: what it takes of
// memory is gone afterwards, and its low priority can't hold up the log.
type Compression interface {
	Wait() error
	Kill() // lets Wait return; more than once, and after it, does nothing
}

// ErrBusy means that another log's compression goes on.
var ErrBusy = errors.New("another log is being compressed")

// Compressor starts the compression of a log into an empty file that must not
// grow beyond room bytes. It closes neither.
type Compressor func(to, from *os.File, room int64) (Compression, error)

// job is the compression of an older file. Its number changes with rotations.
type job struct {
	number  int
	room    int64 // bytes that it may take until it is done
	to      *os.File
	process Compression
	dropped bool // guarded by the mutex of the Writer
}

// drop ends a job without a result, and frees its room.
func (j *job) drop() {
	j.dropped = true
	j.process.Kill()
	_ = os.Remove(j.to.Name()) // or the next writer does it
	_ = j.to.Truncate(0)       // the dying process may hold it a little longer
}

// compressOlder compresses what is rotated, until stop ends.
func (w *Writer) compressOlder(stop <-chan struct{}, start Compressor) {
	timer := time.NewTimer(quiet) // what an earlier writer left
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-w.rotation:
			timer.Reset(quiet)
		case <-timer.C:
			switch more, err := w.compressNext(stop, start); {
			case errors.Is(err, ErrBusy):
				timer.Reset(quiet)
			case more && err == nil:
				timer.Reset(0)
			} // what fails is tried again after the next rotation
		}
	}
}

// compressNext compresses the oldest file that isn't yet. Not more means that
// there is none, or no room.
func (w *Writer) compressNext(stop <-chan struct{}, start Compressor) (more bool, err error) {
	j, from, err := w.begin(start)
	if j == nil {
		return false, err
	}
	done := make(chan error, 1)
	go func() { done <- j.process.Wait() }()
	select {
	case err = <-done:
	case <-stop:
		j.process.Kill()
		err = errors.Join(errors.New("the log ends"), <-done)
	}
	return true, errors.Join(w.finish(j, from, err), from.Close(), j.to.Close())
}

func (w *Writer) begin(start Compressor) (*job, *os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prune()
	files, err := ListOlder(w.path)
	if err != nil {
		return nil, nil, err
	}
	next := Older{}
	for _, f := range files {
		if f.Plain > 0 && f.Number > next.Number {
			next = f
		}
	}
	// Half of what is left: the file that is written needs room too.
	room := (w.bound() - w.older - w.size) / 2
	if next.Number == 0 || room < next.Plain/50 {
		return nil, nil, nil
	}
	from, _, err := openRegular(Rotated(w.path, next.Number), os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	_ = os.Remove(temporary(w.path)) // what isn't the writer's can't be written to
	to, err := os.OpenFile(temporary(w.path), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	process, err := start(to, from, room)
	if err != nil {
		return nil, nil, errors.Join(err, os.Remove(to.Name()), to.Close(), from.Close())
	}
	w.job = &job{number: next.Number, room: room, to: to, process: process}
	return w.job, from, nil
}

// finish puts the compressed file in the place of the other one. A crash in
// between leaves both, of which prune removes one; Compressor's process has
// made sure that the compressed one is on the disk.
func (w *Writer) finish(j *job, from *os.File, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.dropped {
		return errors.New("its room was needed, or its file is gone")
	}
	w.job = nil
	if err != nil {
		j.drop()
		return err
	}
	info, err := from.Stat()
	if err == nil { // readers tell by it whether there is anything of a time in it
		err = os.Chtimes(j.to.Name(), info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = os.Rename(j.to.Name(), Compressed(w.path, j.number))
	}
	if err != nil {
		j.drop()
		return err
	}
	err = os.Remove(Rotated(w.path, j.number))
	w.prune()
	return err
}
