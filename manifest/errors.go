package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// maxErrors bounds what is told of one hopeless file.
const maxErrors = 100

// Error is one problem of a manifest at its place in the file as written.
// Line and Column count from 1; Column counts bytes, as YAML does.
type Error struct {
	File         string
	Line, Column int
	Path         string // "services.web.ports[0]"; empty for the file as a whole
	Reason       string // why it is refused
	Hint         string // the next step; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString("refused: " + e.Reason)
	if e.Hint != "" {
		b.WriteString(". " + e.Hint)
	}
	return b.String()
}

// Is makes errors.Is(err, spec.ErrRefused) true.
func (e *Error) Is(target error) bool { return target == spec.ErrRefused }

// Errors is every problem of a manifest, in the order of files and positions.
// It is never empty.
type Errors []*Error

func (l Errors) Error() string {
	lines := make([]string, 0, len(l))
	for i, e := range l {
		if i == maxErrors {
			lines = append(lines, fmt.Sprintf("and %d more problems", len(l)-maxErrors))
			break
		}
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As see each problem.
func (l Errors) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// problem is an Error that doesn't know its place yet.
type problem struct{ reason, hint string }

func (p *problem) Error() string { return p.reason }

func refuse(hint, format string, args ...any) *problem {
	return &problem{reason: fmt.Sprintf(format, args...), hint: hint}
}

// report collects problems and remarks while a manifest is read.
type report struct {
	order    map[string]int // files in the order they were given
	errs     Errors
	notes    []string
	warnings []string
	said     map[string]bool
	known    map[string]bool // paths with a problem at or below them
	nodes    int             // values that were read, with aliases and extends followed
	text     int             // bytes of them
	ended    bool            // a bound was passed, so that what was read isn't whole
}

func newReport() *report {
	return &report{order: map[string]int{}, said: map[string]bool{}, known: map[string]bool{}}
}

func (r *report) file(name string) {
	if _, ok := r.order[name]; !ok {
		r.order[name] = len(r.order)
	}
}

func (r *report) add(at place, path string, p *problem) {
	r.errs = append(r.errs, &Error{
		File: at.file, Line: at.line, Column: at.column,
		Path: path, Reason: p.reason, Hint: p.hint,
	})
	r.known[path] = true
	for i, c := range path {
		if c == '.' || c == '[' {
			r.known[path[:i]] = true
		}
	}
}

// below reports whether a problem at the path or below it is known already:
// what is found there later may only follow from it.
func (r *report) below(path string) bool { return r.known[path] }

// note tells of what is easily overlooked.
func (r *report) note(format string, args ...any) { r.say(&r.notes, fmt.Sprintf(format, args...)) }

// warn tells of what is probably a mistake.
func (r *report) warn(format string, args ...any) { r.say(&r.warnings, fmt.Sprintf(format, args...)) }

func (r *report) say(list *[]string, text string) {
	if !r.said[text] {
		r.said[text] = true
		*list = append(*list, text)
	}
}

// err returns the sorted problems without repetition, or nil.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(r.order[a.File], r.order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
		)
	})
	return slices.CompactFunc(r.errs, func(a, b *Error) bool { return *a == *b })
}

// notFound is spec.ErrNotFound in words of its own.
type notFound string

func (e notFound) Error() string { return string(e) }
func (e notFound) Unwrap() error { return spec.ErrNotFound }
