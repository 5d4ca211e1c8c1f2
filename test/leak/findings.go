package leak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Place is a row of the table.
type Place string

// The places, in the order of the table.
const (
	Given   Place = "command line that set it, which every user of the host sees"
	Args    Place = "command lines of other processes"
	Environ Place = "environment of other processes"
	Own     Place = "environment of the program itself, its children, `exec` and health checks"
	Data    Place = "data directory: databases, configuration, copies"
	Bundles Place = "run directories: OCI bundles, runtime state"
	Layers  Place = "writable layers of containers"
	Logs    Place = "logs"
	Answers Place = "what commands and the API print, errors too"
	Rules   Place = "packet rules"
	Temp    Place = "/tmp, /var/tmp, /dev/shm, core files"
	Sources Place = "files that must stay while it runs"
	After   Place = "on disk after container and secret were removed"
)

// Places are all of them.
var Places = []Place{Given, Args, Environ, Own, Data, Bundles, Layers, Logs, Answers, Rules, Temp, Sources, After}

// Findings collects what a scan finds. It is safe for concurrent use.
type Findings struct {
	canaries []Canary
	matcher  *Matcher

	mu    sync.Mutex
	found map[Place]map[int]string // canary -> where it was found first
	size  map[Place]int64          // bytes that were looked through
	errs  []error
}

// NewFindings has found nothing yet.
func NewFindings(canaries []Canary) *Findings {
	return &Findings{canaries: canaries, matcher: NewMatcher(canaries), found: map[Place]map[int]string{}, size: map[Place]int64{}}
}

func (f *Findings) add(p Place, item string, size int64, found []Match) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size[p] += size
	for _, m := range found {
		if f.found[p] == nil {
			f.found[p] = map[int]string{}
		}
		if _, ok := f.found[p][m.Canary]; !ok {
			f.found[p][m.Canary] = fmt.Sprintf("%s (%s) in %s", f.canaries[m.Canary].Name, m.Form, item)
		}
	}
}

// Text looks through what something called item printed.
func (f *Findings) Text(p Place, item string, b []byte) {
	f.add(p, item, int64(len(b)), f.matcher.Find(b))
}

// fail notes what couldn't be looked through.
func (f *Findings) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

// Err says what couldn't be looked through.
func (f *Findings) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.errs...)
}

// File looks through a file. One that has gone meanwhile is success.
func (f *Findings) File(p Place, path string) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if gone(err) {
		return
	}
	if err != nil {
		f.fail(err)
		return
	}
	defer file.Close()
	found, size, err := f.matcher.Read(file)
	if err != nil && !gone(err) {
		f.fail(err)
	}
	f.add(p, path, size, found)
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.EIO)
}

// Tree looks through all regular files below root, and through the names of all,
// except below what place gives no Place for.
func (f *Findings) Tree(root string, place func(path string) Place) {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		p := place(path)
		if p == "" {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		f.Text(p, "name of "+path, []byte(e.Name()))
		switch {
		case e.Type().IsRegular() && !inKernel(path):
			f.File(p, path)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err == nil {
				f.Text(p, "target of "+path, []byte(target))
			}
		}
		return nil
	})
	if err != nil {
		f.fail(err)
	}
}

// inKernel reports whether the path is a namespace, which can't be read.
func inKernel(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// all is the place of everything below a root.
func all(p Place) func(string) Place { return func(string) Place { return p } }

// changedSince is a place for files that changed after a time. Directories are
// looked into in any case, except the ones to skip.
func changedSince(p Place, since time.Time, skip ...string) func(string) Place {
	return func(path string) Place {
		fi, err := os.Lstat(path)
		if err != nil || slices.Contains(skip, path) {
			return ""
		}
		if fi.IsDir() || !changed(fi).Before(since) {
			return p
		}
		return ""
	}
}

func changed(fi fs.FileInfo) time.Time {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok {
		return time.Unix(st.Ctim.Unix())
	}
	return fi.ModTime()
}

// InMemory checks that a file system never is on a disk.
func InMemory(path string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	if s.Type != unix.TMPFS_MAGIC && s.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is on a file system of type %#x, neither tmpfs nor ramfs", path, s.Type)
	}
	return nil
}

// Count is how many of a column's secrets were found at a place.
func (f *Findings) Count(column string, p Place) int {
	return len(f.Where(column, p))
}

// Where tells for each of them one place where it was found.
func (f *Findings) Where(column string, p Place) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for i, where := range f.found[p] {
		if f.canaries[i].Column == column {
			out = append(out, where)
		}
	}
	slices.Sort(out)
	return out
}

// Looked is how many bytes were looked through at a place.
func (f *Findings) Looked(p Place) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size[p]
}

// Marks of the table in a page.
const (
	begin = "<!-- the table is written by `make leakscan` -->\n"
	end   = "<!-- end of the table -->\n"
)

// Table writes a row a place and a column for each of the columns, with how many
// of their secrets were found there.
func Table(columns []string, count func(column string, p Place) int) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range columns {
		b.WriteString(" " + c + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(columns)) + "\n")
	for _, p := range Places {
		fmt.Fprintf(&b, "| %s |", p)
		for _, c := range columns {
			fmt.Fprintf(&b, " %d |", count(c, p))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Replace puts a table in the place of a page's earlier one.
func Replace(page []byte, table string) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the page has no place for the table: put %q and %q into it", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return slices.Concat(before, []byte(begin), []byte(table), []byte(end), after), nil
}

// Columns reads a page's table back: column, then place.
func Columns(page []byte) map[string]map[Place]int {
	_, rest, _ := bytes.Cut(page, []byte(begin))
	table, _, _ := bytes.Cut(rest, []byte(end))
	var columns []string
	out := map[string]map[Place]int{}
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "":
			columns = cells[1:]
		case slices.Contains(Places, Place(cells[0])):
			for i, c := range cells[1:] {
				var n int
				if _, err := fmt.Sscan(c, &n); err != nil {
					n = -1
				}
				if out[columns[i]] == nil {
					out[columns[i]] = map[Place]int{}
				}
				out[columns[i]][Place(cells[0])] = n
			}
		}
	}
	return out
}

// readAll is a file, or what it has until an error.
func readAll(path string) []byte {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	b, _ := io.ReadAll(file) // a process may end meanwhile
	return b
}
