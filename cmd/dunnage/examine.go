package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"dunnage/spec"
)

// examineTime is what each check of doctor gets. They run side by side, so that
// an answer is there soon after, whatever hangs.
const examineTime = 1500 * time.Millisecond

// check looks at one thing. It should return when ctx ends, and is left behind
// if it doesn't.
type check struct {
	name string
	run  func(ctx context.Context) []spec.Finding
}

// examine runs all checks side by side and returns their findings in the checks'
// order, under the check's name unless they say another. One that isn't done in time is a finding itself.
func examine(ctx context.Context, limit time.Duration, all []check) []spec.Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		index    int
		findings []spec.Finding
	}
	results := make(chan result, len(all)) // nobody is held up by one that comes late
	for i, c := range all {
		go func() { results <- result{i, c.run(ctx)} }()
	}
	found := make([][]spec.Finding, len(all))
	done := make([]bool, len(all))
	late := time.After(limit + limit/4)
	for left := len(all); left > 0; {
		select {
		case r := <-results:
			found[r.index], done[r.index] = r.findings, true
			left--
		case <-late:
			left = 0
		}
	}
	var out []spec.Finding
	for i, c := range all {
		if !done[i] {
			out = append(out, spec.Finding{
				Check: c.name, Text: fmt.Sprintf("the check isn't done within %s: what it looks at hangs", limit),
				Next: "see `dmesg` for a disk or a mount that doesn't answer",
			})
		}
		for _, f := range found[i] {
			f.Check = cmp.Or(f.Check, c.name)
			out = append(out, f)
		}
	}
	return out
}

// worstFirst keeps the order of the checks among those that are alike.
func worstFirst(all []spec.Finding) {
	rank := func(f spec.Finding) int {
		switch {
		case !f.OK:
			return 0
		case f.Warn:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(all, func(a, b spec.Finding) int { return rank(a) - rank(b) })
}

func fine(format string, args ...any) []spec.Finding {
	return []spec.Finding{{OK: true, Text: fmt.Sprintf(format, args...)}}
}

func warned(next, format string, args ...any) spec.Finding {
	return spec.Finding{OK: true, Warn: true, Text: fmt.Sprintf(format, args...), Next: next}
}

func wrong(next, format string, args ...any) spec.Finding {
	return spec.Finding{Text: fmt.Sprintf(format, args...), Next: next}
}
