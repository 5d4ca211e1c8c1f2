package logwriter

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The files of a log are the one that is written, PATH, and older ones, of
// which 1 is the newest: PATH.1 or, compressed, PATH.1.gz. A crash in the middle
// of a rotation can leave a number out, and one in the middle of a compression
// both forms of a number: they hold the same, and either counts.
// PATH.gz.tmp is a compression that goes on, or that a crash cut.

// Rotated names the i-th older file of path, not compressed; 0 is path itself.
func Rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// Compressed names the i-th older file of path, i from 1 on, in the form of
// gzip.go.
func Compressed(path string, i int) string { return Rotated(path, i) + ".gz" }

func temporary(path string) string { return path + ".gz.tmp" }

// Older is one file of a log that was rotated, with the bytes of either form;
// 0 = there is none, or what has its name is no regular file.
type Older struct {
	Number     int
	Plain, Zip int64
}

func (o Older) size() int64 { return o.Plain + o.Zip }

// ListOlder finds what was rotated, by number, and what has such a name without
// being a file.
func ListOlder(path string) (map[int]Older, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	found := make(map[int]Older)
	for _, e := range entries {
		n, zip := number(e.Name(), filepath.Base(path))
		if n == 0 {
			continue
		}
		info, err := e.Info()
		if err != nil { // removed meanwhile
			continue
		}
		o := found[n]
		o.Number = n
		switch {
		case !info.Mode().IsRegular():
		case zip:
			o.Zip = info.Size()
		default:
			o.Plain = info.Size()
		}
		found[n] = o
	}
	return found, nil
}

// Strangers lists what has the name of an older file of path and is no regular
// file. What is in the way there can't be rotated over: its number is left out.
func Strangers(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	var out []string
	for _, e := range entries {
		if n, _ := number(e.Name(), filepath.Base(path)); n > 0 && !e.Type().IsRegular() {
			out = append(out, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return out, err
}

// number is the i of Rotated or Compressed; 0 = it is neither.
func number(name, base string) (i int, zip bool) {
	text, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return 0, false
	}
	text, zip = strings.CutSuffix(text, ".gz")
	i, err := strconv.Atoi(text)
	if err != nil || i < 1 || strconv.Itoa(i) != text {
		return 0, false
	}
	return i, zip
}
