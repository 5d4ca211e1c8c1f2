package engine

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// startError takes the runtime's layers of prefixes off and says what to do
// about the usual causes.
func (e *Engine) startError(ctx context.Context, err error) error {
	if f := readStart(err); f != nil {
		return f
	}
	return e.wrap(ctx, err, "run its process")
}

// startFailure is a start that the runtime refused, for a cause that is known.
type startFailure struct {
	text, hint string
	err        error
}

func (s *startFailure) Error() string {
	if s.hint == "" {
		return s.text
	}
	return s.text + "; " + s.hint
}

func (s *startFailure) Unwrap() error { return s.err }

// inBundle is what runc puts before a path in the container, where it means the
// file and not the name: containerd's directory for the task.
var inBundle = regexp.MustCompile(`/[^ "]*/io\.containerd\.runtime\.v2\.task/[^/ "]+/[^/ "]+/rootfs`)

// causes are the runtime's refusals that somebody can do something about, first
// match. What is captured goes into said, which begins with the manifest's key;
// the runtime's own words stand after it.
var causes = []struct {
	pattern    *regexp.Regexp
	said, next string
}{
	{regexp.MustCompile(`error mounting "([^"]*)" to rootfs at "([^"]*)": .*cannot be mounted because it is inside /proc`),
		`volumes: %[1]s can't be mounted at %[2]s, which is in /proc`, "mount it elsewhere, or set the kernel's parameter with sysctls:"},
	{regexp.MustCompile(`error mounting "([^"]*)" to rootfs at "([^"]*)": .*read-only file system`),
		`volumes: %[1]s can't be mounted at %[2]s: the directory isn't there, and can't be made in a read-only mount`, "make it in what is mounted above it, or leave read_only: out there"},
	{regexp.MustCompile(`error mounting "(/[^"]*)" to rootfs at "([^"]*)": .*not a directory`),
		`volumes: %[1]s can't be mounted at %[2]s: one is a file and the other a directory, or a part of the path is a file`, "mount a file over a file, or a directory over a directory"},
	{regexp.MustCompile(`error mounting "([^/"]*)" to rootfs at "([^"]*)": .*not a directory`),
		`volumes: %[1]s can't be mounted at %[2]s: a file is in its place, of the image or of a volume`, "mount the file elsewhere"},
	{regexp.MustCompile(`^error during container init: mkdir ([^:]*): not a directory$`),
		`working_dir: %[1]s is a file`, "name a directory, or one that can be made"},
	{regexp.MustCompile(`^error during container init: write /proc/sys/(\S+): invalid argument$`),
		`sysctls: the kernel doesn't take the value for %[1]s: it is out of range, or no number`, "see man 5 proc for what it takes"},
	{regexp.MustCompile(`^error during container init: open /proc/sys/(\S+): no such file or directory$`),
		`sysctls: this kernel has no %[1]s`, "look for a slip in the name, or load the module that it belongs to"},
	{regexp.MustCompile(`error setting rlimit type (\d+): operation not permitted`),
		`ulimits: the kernel takes no value that high for %[1]s`, "lower it; for nofile, /proc/sys/fs/nr_open is the most"},
	{regexp.MustCompile(`can't get final child's PID from pipe: EOF$`),
		`runc's own process died on its way into the container`, "raise mem_limit:, or remove oom_score_adj: if that is below 0: `dmesg` says whether memory ran out"},
	{regexp.MustCompile(`: file exists$`), "", "a crash of containerd left this directory: remove it, or restart the host"},
	{regexp.MustCompile(`^exec.*(executable file not found|no such file or directory)`), "", "the image has no such program: check command: and entrypoint:"},
	{regexp.MustCompile(`^exec.*permission denied`), "", "the file is not executable for the container's user, or on a mount with noexec"},
	{regexp.MustCompile(`^exec.*exec format error`), "", "the program is for another platform, or a script without #!"},
	{regexp.MustCompile(`^exec`), "", ""},
}

// readStart is nil for an error whose cause isn't known.
func readStart(err error) *startFailure {
	text := err.Error()
	const last = "unable to start container process: "
	if i := strings.LastIndex(text, last); i >= 0 {
		text = text[i+len(last):]
	} else {
		text = strings.TrimPrefix(text, "failed to create shim task: ")
		text = strings.TrimPrefix(text, "OCI runtime create failed: ")
	}
	text = inBundle.ReplaceAllString(strings.TrimSuffix(text, ": unknown"), "")
	if file, ok := strings.CutPrefix(text, "eaccess "); ok { // runc's own look, which sees noexec
		text = "exec " + file
	}
	for _, c := range causes {
		m := c.pattern.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		f := &startFailure{text: text, hint: c.next, err: err}
		if c.said != "" {
			captured := make([]any, len(m)-1)
			for i, part := range m[1:] {
				captured[i] = inManifest(c.said, part)
			}
			f.text = fmt.Sprintf(c.said, captured...)
			f.hint += "; runc: " + text
		}
		return f
	}
	return nil
}

// inManifest is what the runtime calls something in the manifest's words.
func inManifest(said, part string) string {
	n, err := strconv.Atoi(part)
	switch {
	case strings.HasPrefix(said, "sysctls:"):
		return strings.ReplaceAll(part, "/", ".")
	case strings.HasPrefix(said, "ulimits:") && err == nil && n < len(limitNames):
		return limitNames[n]
	}
	return part
}

// limitNames are the kernel's limits of a process by number, as Compose calls them.
var limitNames = []string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
	"sigpending", "msgqueue", "nice", "rtprio", "rttime",
}
