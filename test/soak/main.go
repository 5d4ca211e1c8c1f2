// Command soak plays the tests that measure something as long as they are meant
// to be played, and puts what they measured into one table and one JSON file.
// Which tests those are it reads from the tests themselves: whatever calls row,
// in test/e2e/soak_test.go, at the end of however many calls.
//
//	soak [-run REGEXP] [-timeout DURATION] [-o build/soak.json]
//
// It ends with 1 when a test failed, a row isn't what it must be, or a test that
// should have told something told nothing.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// tests is the folder of the tests that are played.
const tests = "test/e2e"

func main() {
	only := flag.String("run", ".", "play the tests whose names match")
	timeout := flag.Duration("timeout", 12*time.Hour, "give up after so long")
	out := flag.String("o", "build/soak.json", "where the rows go")
	flag.Parse()
	if err := soak(*only, *timeout, *out); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(only string, timeout time.Duration, out string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run %s: %w", only, err)
	}
	all, err := measuring(os.DirFS(tests))
	if err != nil {
		return err
	}
	var names []string
	for _, name := range all {
		if wanted.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no test in %s that calls row matches %s", tests, only)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	var rows []row
	var failed []string
	for _, name := range names { // one after the other: they measure
		fmt.Printf("=== %s %s\n", time.Now().Format(time.TimeOnly), name)
		found, err := play(name, timeout)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", name, err))
		}
		rows = append(rows, found...)
		if err := write(out, rows); err != nil { // what a soak that is cut short has found, too
			return err
		}
	}
	fmt.Print("\n", table(rows))
	if why := append(failed, wrong(rows)...); len(why) > 0 {
		return errors.New(strings.Join(why, "; "))
	}
	return nil
}

// play runs one test whole and returns its rows.
func play(name string, timeout time.Duration) ([]row, error) {
	dir, err := os.MkdirTemp("", "dunnage-soak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "rows")
	cmd := exec.Command("go", "test", "./"+tests, "-count=1", "-v", "-timeout", timeout.String(), "-run", "^"+name+"$")
	cmd.Env = append(os.Environ(), "DUNNAGE_ROOT_TESTS=1", "DUNNAGE_SOAK="+file)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ran := cmd.Run()
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it told nothing")
	}
	rows, parse := parseRows(b)
	for i := range rows {
		rows[i].Test = name
	}
	return rows, errors.Join(ran, err, parse)
}

func write(path string, rows []row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
