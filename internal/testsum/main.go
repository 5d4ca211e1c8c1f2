// Command testsum runs `go test -json` and tells what came out of it: one line
// a package while it goes, every failure with its whole output at the end, and
// as the last line "N passed, N failed", counted from the tests' own results.
//
//	testsum [-check COMMAND]... -- go test -json ./...
//
// Nothing that went wrong counts as passed: a package that doesn't build, a
// test binary that dies or exits without naming a failed test, a test that
// never ended, and, where DUNNAGE_ROOT_TESTS asks for everything, a test that
// was skipped. A -check (go vet) that fails counts as one failure.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	var checks []string
	flag.Func("check", "command that must succeed; may be repeated", func(s string) error {
		checks = append(checks, s)
		return nil
	})
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: testsum [-check COMMAND]... -- go test -json PACKAGES")
		os.Exit(2)
	}
	s := newSummary(os.Getenv("DUNNAGE_ROOT_TESTS") != "")
	for _, c := range checks {
		s.check(c, runCheck(c))
	}
	if err := runTests(s, os.Stdout, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !s.print(os.Stdout) {
		os.Exit(1)
	}
}

// runCheck returns the command's output and its error.
func runCheck(command string) result {
	out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput()
	return result{output: string(out), err: err}
}

// runTests feeds what argv writes to s. The command's own exit code counts as
// a failure only if no test explains it.
func runTests(s *summary, progress io.Writer, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("read output of %s: %w", argv[0], err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	readErr := s.read(out, progress)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	s.finish(err)
	return readErr
}
