package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`, and
// `go help buildjson` for the build actions).
type event struct {
	Action      string
	Package     string
	ImportPath  string // build-output, build-fail
	FailedBuild string // fail of a package that wasn't built
	Test        string
	Elapsed     float64
	Output      string
}

// result is a check's outcome.
type result struct {
	output string
	err    error
}

// key names a test, or a package (empty test).
type key struct{ pkg, test string }

// failure is one thing that went wrong, ready to be shown.
type failure struct{ title, output string }

// summary counts results. Only tests without subtests are counted, so that a
// table test with ten rows counts ten and not eleven; a parent counts when it
// failed by itself.
type summary struct {
	strict   bool // skipped tests count as failed
	passed   int
	skipped  int
	failures []failure

	output    map[key]*strings.Builder
	open      map[key]bool // started and not ended
	parents   map[key]bool // have subtests
	failedIn  map[string]int
	failedSub map[key]bool // a subtest of it failed
	builds    map[string]*strings.Builder
}

func newSummary(strict bool) *summary {
	return &summary{
		strict:    strict,
		output:    map[key]*strings.Builder{},
		open:      map[key]bool{},
		parents:   map[key]bool{},
		failedIn:  map[string]int{},
		failedSub: map[key]bool{},
		builds:    map[string]*strings.Builder{},
	}
}

func (s *summary) check(name string, r result) {
	if r.err != nil {
		s.failures = append(s.failures, failure{name + ": " + r.err.Error(), r.output})
	}
}

// read takes events until r ends. Lines that aren't events go to progress.
func (s *summary) read(r io.Reader, progress io.Writer) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line, progress)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
}

func (s *summary) line(line []byte, progress io.Writer) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprintf(progress, "%s", line)
		return
	}
	s.event(e)
	if e.Test == "" && (e.Action == "pass" || e.Action == "fail") {
		fmt.Fprintf(progress, "%-4s  %-40s %7.1f s\n", e.Action, e.Package, e.Elapsed)
	}
}

func (s *summary) event(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		text(s.builds, e.ImportPath).WriteString(e.Output)
	case "start":
		s.open[k] = true
	case "run":
		s.open[k] = true
		if p, ok := k.parent(); ok {
			s.parents[p] = true
		}
	case "output":
		text(s.output, k).WriteString(e.Output)
	case "pass", "fail", "skip":
		s.end(k, e)
	}
}

func (s *summary) end(k key, e event) {
	delete(s.open, k)
	switch {
	case k.test == "":
		s.endPackage(k, e)
	case e.Action == "fail":
		s.failTest(k, "")
	case e.Action == "skip" && s.strict:
		s.failTest(k, " (skipped, though everything was asked for)")
	case e.Action == "skip":
		s.skipped++
	case !s.parents[k]:
		s.passed++
	}
	if k.test != "" {
		delete(s.output, k)
	}
}

// failTest records a failed test, unless a subtest has explained it already.
func (s *summary) failTest(k key, why string) {
	if p, ok := k.parent(); ok {
		s.failedSub[p] = true
	}
	s.failedIn[k.pkg]++
	if s.failedSub[k] {
		return
	}
	s.failures = append(s.failures, failure{k.pkg + " " + k.test + why, text(s.output, k).String()})
}

// endPackage turns a package that failed without a failed test into a failure:
// it wasn't built, it died, or its TestMain said no.
func (s *summary) endPackage(k key, e event) {
	if e.Action != "fail" {
		return
	}
	s.failUnended(k.pkg)
	if e.FailedBuild != "" {
		s.failures = append(s.failures, failure{k.pkg + " doesn't build", text(s.builds, e.FailedBuild).String()})
		return
	}
	if s.failedIn[k.pkg] == 0 {
		s.failures = append(s.failures, failure{k.pkg + " failed outside of a test", text(s.output, k).String()})
	}
}

// failUnended records the tests that a dead test binary left running. The
// panic or the timeout's stack stands in the output of one of them.
func (s *summary) failUnended(pkg string) {
	var left []key
	for k := range s.open {
		if k.pkg == pkg && k.test != "" {
			left = append(left, k)
		}
	}
	// Subtests first, so that they explain their parents.
	sort.Slice(left, func(i, j int) bool { return left[i].test > left[j].test })
	for _, k := range left {
		delete(s.open, k)
		s.failTest(k, " (never ended)")
	}
}

// finish is called when the command has ended. A stream that was cut short, or
// an exit code that nothing explains, is a failure of its own.
func (s *summary) finish(exit error) {
	var cut []string
	for k := range s.open {
		if k.test == "" {
			cut = append(cut, k.pkg)
		}
	}
	sort.Strings(cut)
	for _, pkg := range cut {
		s.failUnended(pkg)
		s.failures = append(s.failures, failure{pkg + " never reported a result", ""})
	}
	if exit != nil && len(s.failures) == 0 {
		s.failures = append(s.failures, failure{"go test: " + exit.Error(), ""})
	}
	if s.passed == 0 && len(s.failures) == 0 {
		s.failures = append(s.failures, failure{"no test ran", ""})
	}
}

// print writes the failures and the last line, and reports whether all is well.
func (s *summary) print(w io.Writer) bool {
	for _, f := range s.failures {
		fmt.Fprintf(w, "\n--- FAIL: %s\n%s", f.title, indent(f.output))
	}
	fmt.Fprintln(w)
	if s.skipped > 0 {
		fmt.Fprintf(w, "%d skipped: DUNNAGE_ROOT_TESTS isn't set\n", s.skipped)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", s.passed, len(s.failures))
	return len(s.failures) == 0
}

// parent is the test that k is a subtest of.
func (k key) parent() (key, bool) {
	i := strings.LastIndexByte(k.test, '/')
	if i < 0 {
		return key{}, false
	}
	return key{k.pkg, k.test[:i]}, true
}

func text[K comparable](m map[K]*strings.Builder, k K) *strings.Builder {
	if m[k] == nil {
		m[k] = &strings.Builder{}
	}
	return m[k]
}

func indent(s string) string {
	if s == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}
