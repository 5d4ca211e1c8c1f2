package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"dunnage/spec"
)

// known is a range of versions that is known to be bad, with the reason and
// where that is told.
type known struct {
	from, below string // from <= version < below; empty from = all before
	why         string
	wrong       bool // it doesn't work; else it is a danger
}

var knownContainerd = []known{
	{from: "1.6.22", below: "1.6.36", why: "loses the end of a container that dies while an exec in it starts: it is shown as running for ever (containerd#10589, fixed by #10651)"},
	{from: "1.7.3", below: "1.7.22", why: "loses the end of a container that dies while an exec in it starts: it is shown as running for ever (containerd#10589, fixed by #10651)"},
	{from: "1.7.3", below: "1.7.8", why: "has shims that hang when a process ends while it is made (containerd#9103)"},
	{below: "1.6.0", why: "is no longer maintained, and not what dunnage is tested with", wrong: true},
}

var knownRunc = []known{
	{below: "1.1.12", why: "lets a container out of itself by a leaked descriptor (CVE-2024-21626)"},
	{below: "1.2.8", why: "lets a malicious image write to the host through masked paths (CVE-2025-31133, -52565, -52881)"},
	{from: "1.3.0", below: "1.3.3", why: "lets a malicious image write to the host through masked paths (CVE-2025-31133, -52565, -52881)"},
	{from: "1.0.0", below: "1.0.1", why: "leaves groups frozen when it sets limits, with cgroup v1 and systemd (runc#3085)", wrong: true},
}

var knownKernels = []known{
	{below: "5.3", why: "has no pidfd_open, without which no process can be stopped safely", wrong: true},
}

// judge compares a version with those that are known to be bad.
func judge(name, version string, table []known) []spec.Finding {
	v := numbers(version)
	if len(v) == 0 {
		return []spec.Finding{warned("install a released one: only its version can be compared with those that are known to be bad", "%s has the version %q, which says nothing", name, version)}
	}
	var out []spec.Finding
	for _, k := range table {
		if compareVersions(v, numbers(k.from)) < 0 || compareVersions(v, numbers(k.below)) >= 0 {
			continue
		}
		text := fmt.Sprintf("%s %s %s", name, version, k.why)
		next := fmt.Sprintf("update it to %s or later", k.below)
		if k.wrong {
			out = append(out, wrong(next, "%s", text))
		} else {
			out = append(out, warned(next+", unless your distribution has brought the fix back into its own", "%s", text))
		}
	}
	if len(out) == 0 {
		return fine("%s %s", name, version)
	}
	return out
}

// numbers are the first numbers of a version: [1 1 5] of "v1.1.5+ds1".
func numbers(version string) []int {
	version = strings.TrimPrefix(version, "v")
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		out = append(out, n)
	}
	return out
}

func compareVersions(a, b []int) int {
	for i := range max(len(a), len(b)) {
		at := func(v []int) int {
			if i < len(v) {
				return v[i]
			}
			return 0
		}
		if c := cmp.Compare(at(a), at(b)); c != 0 {
			return c
		}
	}
	return 0
}
