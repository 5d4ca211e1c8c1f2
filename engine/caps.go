package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"

	"dunnage/spec"
)

// defaultCaps is what a container gets without cap_add and cap_drop: of
// Docker's fourteen those that an entrypoint uses which starts as root, chowns
// its data, drops to a user and binds a low port, as those of the official
// nginx, redis and postgres images do. The seccomp profile and
// no_new_privileges limit all of them further.
//
// Left out, against Docker: MKNOD (device nodes), NET_RAW (forged packets;
// ping works by the ping_group_range sysctl instead), SETFCAP (file
// capabilities, which no_new_privileges makes useless), SYS_CHROOT (a second
// root: sshd and postfix ask for it by cap_add), AUDIT_WRITE (PAM logins).
var defaultCaps = []string{
	"CAP_CHOWN",            // entrypoints chown their data directory before they drop to a user
	"CAP_DAC_OVERRIDE",     // root reads and writes files of that user: logs, an existing data directory
	"CAP_FOWNER",           // chmod of a data directory that belongs to that user (postgres: chmod 700 PGDATA)
	"CAP_FSETID",           // chmod g+s on a directory of another group; without it the bit is lost silently
	"CAP_KILL",             // a root master signals workers of another user (nginx, php-fpm)
	"CAP_SETGID",           // drop to a user: setgroups, setgid (gosu, setpriv, su-exec)
	"CAP_SETUID",           // drop to a user: setuid
	"CAP_SETPCAP",          // setpriv --bounding-set/--inh-caps in entrypoints; only ever takes away
	"CAP_NET_BIND_SERVICE", // binaries with this file capability can't be executed at all without it (caddy)
}

// capabilities applies cap_add and cap_drop: drop ALL, then add; add ALL, then
// drop; else the default set with both applied. The result is sorted.
func capabilities(c spec.Container) ([]string, error) {
	known := cap.Known()
	for _, name := range slices.Concat(c.CapAdd, c.CapDrop) {
		if name != "ALL" && !slices.Contains(known, name) {
			return nil, fmt.Errorf("capability %q is unknown: %w", strings.TrimPrefix(name, "CAP_"), spec.ErrRefused)
		}
	}
	set := slices.Clone(defaultCaps)
	if slices.Contains(c.CapDrop, "ALL") {
		set = nil
	}
	if slices.Contains(c.CapAdd, "ALL") {
		current, err := cap.Current() // no more than the agent itself has: runc refuses others
		if err != nil {
			return nil, fmt.Errorf("read the agent's own capabilities: %w", err)
		}
		set = current
	}
	for _, name := range c.CapAdd {
		if name != "ALL" && !slices.Contains(set, name) {
			set = append(set, name)
		}
	}
	set = slices.DeleteFunc(set, func(name string) bool {
		return slices.Contains(c.CapDrop, name) && !slices.Contains(c.CapAdd, name)
	})
	slices.Sort(set)
	return set, nil
}
