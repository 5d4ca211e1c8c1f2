package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dunnage/api"
	"dunnage/manifest"
	"dunnage/spec"
)

// The exit codes; docs/cli.md lists them.
const (
	exitDone         = 0
	exitError        = 1
	exitUsage        = 2
	exitNotConverged = 3 // or rolled back, or not as it should be
	exitDifferent    = 3
	exitNoAgent      = 4
	exitInterrupted  = 130
)

// usageError is a command line that makes no sense.
type usageError struct {
	message string
	hint    string
}

func (e *usageError) Error() string { return e.message }
func (e *usageError) Hint() string  { return e.hint }

func usagef(format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...)}
}

// exitCode ends the program with a code; err may be nil when everything has
// been said.
type exitCode struct {
	code int
	err  error
	hint string
}

func (e *exitCode) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e *exitCode) Unwrap() error { return e.err }
func (e *exitCode) Hint() string  { return e.hint }

// finish is the one place where an error becomes text and an exit code.
func (p *program) finish(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	var coded *exitCode
	switch {
	case errors.As(err, &coded):
		if coded.err != nil {
			p.complain(err)
		}
		return coded.code
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, new(*usageError)), errors.Is(err, api.ErrInvalid) && !isAnswer(err):
		p.complain(err)
		return exitUsage
	case errors.Is(err, api.ErrNoAgent), errors.As(err, new(*api.SilentError)):
		p.complain(err)
		return exitNoAgent
	}
	p.complain(err)
	return exitError
}

// isAnswer reports whether the error came from an agent.
func isAnswer(err error) bool { return errors.As(err, new(*api.Error)) }

// complain prints an error and the next step.
func (p *program) complain(err error) {
	text := api.Text(err)
	var list manifest.Errors
	if errors.As(err, &list) {
		outcome := ""
		if p.deploys {
			outcome = "; nothing was changed"
		}
		text = problemsText("the manifest", outcome, list)
	}
	fmt.Fprintf(p.stderr, "%s %s\n", p.paint(red, "dunnage:"), printableLines(text))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(p.stderr, "  %s\n", printableLines(hint))
	}
}

// problemsText puts each problem of a file on a line of its own that begins with
// its place, where editors look for it.
func problemsText(file, outcome string, list manifest.Errors) string {
	problems := "a problem"
	if len(list) > 1 {
		problems = fmt.Sprintf("%d problems", len(list))
	}
	return file + " has " + problems + outcome + "\n" + list.Error()
}

func hintOf(err error) string {
	var coded *exitCode
	if errors.As(err, &coded) && coded.hint == "" && coded.err != nil { // what it wraps may know
		return hintOf(coded.err)
	}
	var h api.Hinter
	if errors.As(err, &h) && h.Hint() != "" {
		return h.Hint()
	}
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e.Hint
	case errors.Is(err, spec.ErrUnavailable):
		return "try again; the agent's log says more"
	}
	return ""
}

// warn tells something that doesn't stop the command.
func (p *program) warn(format string, args ...any) {
	fmt.Fprintf(p.stderr, "%s %s\n", p.paint(yellow, "warning:"), printable(fmt.Sprintf(format, args...)))
}

// note tells of a default that may surprise.
func (p *program) note(text string) {
	fmt.Fprintf(p.stderr, "%s %s\n", p.paint(grey, "note:"), printable(text))
}

// printableLines keeps the lines of a text and makes each harmless.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n")
}
