package reread

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var c Cache[string]
	decoded := 0
	read := func(want string) {
		t.Helper()
		got, err := c.Read(path, func(b []byte) (string, error) { decoded++; return string(b), nil })
		if err != nil || got != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "one")
	read("one")
	read("one")
	if decoded != 1 {
		t.Errorf("an unchanged file was read %d times", decoded)
	}
	time.Sleep(20 * time.Millisecond) // the kernel's clock for files ticks every 4 ms or 10
	write(path, "two")                // of the same size
	read("two")
	write(path+"2", "ten")
	if err := os.Rename(path+"2", path); err != nil {
		t.Fatal(err)
	}
	read("ten")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(path, func(b []byte) (string, error) { return string(b), nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed file: %v, want that it doesn't exist", err)
	}
	if len(c.all) != 0 {
		t.Error("what was read is kept though the file is gone")
	}
}

func TestReadKeepsNoErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	var c Cache[int]
	bad := errors.New("bad")
	if _, err := c.Read(path, func([]byte) (int, error) { return 0, bad }); !errors.Is(err, bad) {
		t.Errorf("%v, want the decoder's error", err)
	}
	if got, err := c.Read(path, func([]byte) (int, error) { return 1, nil }); got != 1 || err != nil {
		t.Errorf("%d, %v after an error, want 1", got, err)
	}
}
