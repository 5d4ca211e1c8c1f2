package regular

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is no regular file is an error at once, whichever way it is opened.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	fifo, socket, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink("fifo", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, socket, link, os.DevNull} {
		for name, open := range map[string]func() error{
			"read":  func() error { _, err := ReadFile(path); return err },
			"write": func() error { return WriteFile(path, []byte("x"), 0o600) },
			"append": func() error {
				_, err := Open(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
				return err
			},
		} {
			done := make(chan error, 1)
			go func() { done <- open() }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), path+" is no regular file: move it away") {
					t.Errorf("%s %s: %v", name, path, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s %s: it hangs", name, path)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"first", "2nd"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v, want %q", b, err, text)
		}
	}
}

// A link is followed to read alone: what it leads to may be others'.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	theirs, link, links := filepath.Join(dir, "theirs"), filepath.Join(dir, "link"), filepath.Join(dir, "links")
	for _, err := range []error{os.WriteFile(theirs, []byte("x"), 0o600), os.Symlink(theirs, link), os.Symlink(dir, links)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err := ReadFile(link); err != nil || string(b) != "x" {
		t.Errorf("read: %q, %v", b, err)
	}
	if err := WriteFile(link, []byte("y"), 0o600); err == nil || !strings.Contains(err.Error(), link+" is no regular file: move it away") {
		t.Errorf("write: %v", err)
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "x" {
		t.Errorf("others' file: %q, %v", b, err)
	}
	for path, ok := range map[string]bool{links: false, filepath.Join(links, "ours"): true, theirs: false} {
		if err := MkdirAll(path, 0o700); ok != (err == nil) {
			t.Errorf("make %s: %v", path, err)
		}
	}
}

// A link to a directory is one; of one that leads nowhere, and of what is none, the
// error says which of the path's directories it is.
func TestMkdirThrough(t *testing.T) {
	dir := t.TempDir()
	links, lost, file := filepath.Join(dir, "links"), filepath.Join(dir, "lost"), filepath.Join(dir, "file")
	for _, err := range []error{os.Symlink(dir, links), os.Symlink("/nonexist", lost), os.WriteFile(file, nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	leadsNowhere, none := lost+" is a link to /nonexist, which isn't there: mount it or remove the link", file+" is no directory: move it away"
	for path, want := range map[string]string{
		links: "", filepath.Join(links, "a", "b"): "", lost: leadsNowhere, filepath.Join(lost, "a", "b"): leadsNowhere,
		file: none, filepath.Join(file, "a"): none,
	} {
		if err := MkdirThrough(path, 0o700); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("make %s: %v, want %q", path, err, want)
		}
	}
}
