package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// logOf are the log files of one replica.
type logOf struct {
	spec.DiskItem
	files []string // names in the service's directory
	wrote time.Time
}

// logItems lists the logs by replica. Of removed replicas, those of the newest
// generations of a service, keep of them, are held.
func (e *Engine) logItems(keep int) ([]logOf, error) {
	projects, err := directories(e.cfg.logsDir())
	errs := []error{err}
	var out []logOf
	for _, project := range projects {
		services, err := directories(filepath.Join(e.cfg.logsDir(), project))
		errs = append(errs, err)
		for _, service := range services {
			items, err := e.serviceLogItems(project, service, keep, e.hasStarted)
			out, errs = append(out, items...), append(errs, err)
		}
	}
	if err := oneOf(errs); err != nil {
		return out, fmt.Errorf("count logs: %w", err)
	}
	return out, nil
}

// oneOf tells the first error, and how many more there are: a disk that fails makes one for
// each file.
func oneOf(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > 1 {
		return fmt.Errorf("%w; and %d more like it", errs[0], len(errs)-1)
	}
	return errors.Join(errs...)
}

// directories are the names of those in a directory. A link to one is none.
func directories(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// openLogDir opens the directory of a service's logs. What is in it is deleted some
// time, so no link is followed on the way: it may lead to files that aren't ours.
// nil = there is no such directory.
func (c Config) openLogDir(project, service string) (*os.File, error) {
	dir, err := os.OpenFile(c.logsDir(), os.O_RDONLY|unix.O_DIRECTORY, 0)
	for _, name := range []string{project, service} {
		if err == nil {
			dir, err = openBelow(dir, name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) { // the latter: a link, for example
		return nil, nil
	}
	return dir, err
}

// openBelow opens a directory in another, which it closes.
func openBelow(above *os.File, name string) (*os.File, error) {
	defer above.Close()
	path := filepath.Join(above.Name(), name)
	fd, err := unix.Openat(int(above.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// removeLog removes the files of one replica's log.
func (c Config) removeLog(l logOf) error {
	dir, err := c.openLogDir(l.Project, l.Service)
	if dir == nil {
		return err
	}
	defer dir.Close()
	var errs []error
	for _, name := range l.files {
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, &fs.PathError{Op: "remove", Path: filepath.Join(dir.Name(), name), Err: err})
		}
	}
	return oneOf(errs)
}

// removeEmptyLogDirs removes the directories of services and projects that have no
// log. One that a replica is about to write to is made anew by its writer. The kernel
// refuses those that aren't empty, and nothing hangs on any that stays.
func (c Config) removeEmptyLogDirs() {
	projects, _ := directories(c.logsDir())
	for _, project := range projects {
		services, _ := directories(filepath.Join(c.logsDir(), project))
		for _, name := range append(services, "") {
			dir, err := os.OpenFile(c.logsDir(), os.O_RDONLY|unix.O_DIRECTORY, 0)
			if name == "" {
				name = project
			} else if err == nil {
				dir, err = openBelow(dir, project)
			}
			if err != nil {
				continue
			}
			_ = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
			dir.Close()
		}
	}
}

// serviceLogItems lists those of one service, the newest first.
func (e *Engine) serviceLogItems(project, service string, keep int, there func(id string) bool) ([]logOf, error) {
	dir, err := e.cfg.openLogDir(project, service)
	if dir == nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	byID := map[string]*logOf{}
	for _, entry := range entries {
		id, _, ok := strings.Cut(entry.Name(), ".log")
		info, err := entry.Info()
		if !ok || err != nil || entry.IsDir() { // somebody else's, or rotated away just now
			continue
		}
		l := byID[id]
		if l == nil {
			l = &logOf{DiskItem: spec.DiskItem{Kind: spec.DiskLogs, Name: id, Project: project, Service: service}}
			byID[id] = l
		}
		l.files = append(l.files, entry.Name())
		l.Add(allocated(info.Sys().(*syscall.Stat_t)))
		if info.ModTime().After(l.wrote) {
			l.wrote = info.ModTime()
		}
	}
	out := make([]logOf, 0, len(byID))
	for _, l := range byID {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b logOf) int { return b.wrote.Compare(a.wrote) })
	kept := map[string]bool{} // generations
	for i := range out {
		if there(out[i].Name) {
			out[i].Holders = []string{out[i].Name}
			continue
		}
		generation := out[i].Name[:max(0, strings.LastIndexByte(out[i].Name, '-'))]
		if len(kept) < keep {
			kept[generation] = true
		}
		if kept[generation] {
			out[i].Holders = []string{fmt.Sprintf("last %s of removed replicas", plural(keep, "generation"))}
		}
	}
	return out, nil
}
