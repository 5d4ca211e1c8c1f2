package engine

import (
	"errors"
	"strings"
	"testing"
)

// What containerd 1.6 with runc 1.1 says of a container that can't start becomes a
// line that names the manifest's key and the next step, with the runtime's own
// words at its end.
func TestStartFailures(t *testing.T) {
	const bundle = "/run/dunnage/containerd/state/io.containerd.runtime.v2.task/dunnage/app-web-cadff97f-1/rootfs"
	for runc, want := range map[string]string{
		`exec: "/no/such": stat /no/such: no such file or directory`:                                                                                               `exec: "/no/such": stat /no/such: no such file or directory; the image has no such program: check command: and entrypoint:`,
		`exec: "nosuch": executable file not found in $PATH`:                                                                                                       `exec: "nosuch": executable file not found in $PATH; the image has no such program: check command: and entrypoint:`,
		`exec: "/etc": permission denied`:                                                                                                                          `exec: "/etc": permission denied; the file is not executable for the container's user, or on a mount with noexec`,
		`error during container init: mkdir /testapp: not a directory`:                                                                                             `working_dir: /testapp is a file; name a directory, or one that can be made; runc: `,
		`error during container init: write /proc/sys/net/ipv4/ip_default_ttl: invalid argument`:                                                                   `sysctls: the kernel doesn't take the value for net.ipv4.ip_default_ttl: it is out of range, or no number; see man 5 proc for what it takes; runc: `,
		`error during container init: open /proc/sys/net/ipv4/nosuch: no such file or directory`:                                                                   `sysctls: this kernel has no net.ipv4.nosuch; look for a slip in the name, or load the module that it belongs to; runc: `,
		`error during container init: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted`:                               `ulimits: the kernel takes no value that high for nofile; lower it; for nofile, /proc/sys/fs/nr_open is the most; runc: `,
		`error during container init: error mounting "/srv/file" to rootfs at "/etc": mount /srv/file:/etc (via /proc/self/fd/6), flags: 0x5000: not a directory`:  `volumes: /srv/file can't be mounted at /etc: one is a file and the other a directory, or a part of the path is a file; mount a file over a file, or a directory over a directory; runc: `,
		`error during container init: error mounting "/srv/sub" to rootfs at "/testapp/x": open o_path procfd: open ` + bundle + `/testapp/x: not a directory`:     `volumes: /srv/sub can't be mounted at /testapp/x: one is a file `,
		`error during container init: error mounting "devpts" to rootfs at "/dev/pts": mkdir ` + bundle + `/dev: not a directory`:                                  `volumes: devpts can't be mounted at /dev/pts: a file is in its place, of the image or of a volume; mount the file elsewhere; runc: `,
		`error during container init: error mounting "/srv/sub" to rootfs at "/a/b": mkdir ` + bundle + `/a/b: read-only file system`:                              `volumes: /srv/sub can't be mounted at /a/b: the directory isn't there, and can't be made in a read-only mount; `,
		`error during container init: error mounting "/srv/file" to rootfs at "/proc/sys": "` + bundle + `/proc/sys" cannot be mounted because it is inside /proc`: `volumes: /srv/file can't be mounted at /proc/sys, which is in /proc; mount it elsewhere, or set the kernel's parameter with sysctls:; runc: `,
		`can't get final child's PID from pipe: EOF`:                                                                                                               `runc's own process died on its way into the container; raise mem_limit:, or remove oom_score_adj: if that is below 0: `,
	} {
		err := errors.New("failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: " + runc + ": unknown")
		f := readStart(err)
		if f == nil {
			t.Errorf("%s isn't read", runc)
			continue
		}
		text := f.Error()
		if !strings.HasPrefix(text, want) || strings.Contains(text, "OCI runtime") || strings.Contains(text, "io.containerd") {
			t.Errorf("%s:\n%s, want\n%s", runc, text, want)
		}
		if own := strings.ReplaceAll(runc, bundle, ""); strings.HasSuffix(want, "runc: ") && text != want+own {
			t.Errorf("%s:\n%s doesn't end with the runtime's words", runc, text)
		}
		if !errors.Is(f, err) {
			t.Errorf("%s: the error itself is lost", runc)
		}
	}
	for _, other := range []string{"ttrpc: closed", "context deadline exceeded", "failed to create shim task: something new: unknown"} {
		if f := readStart(errors.New(other)); f != nil {
			t.Errorf("%q is taken for %q", other, f)
		}
	}
}
