package manifest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func checkSignal(v string) error { _, err := parseSignal(v); return err }

// parseSignal returns the full name: SIGTERM for TERM and for 15.
func parseSignal(v string) (string, error) {
	if n, err := strconv.Atoi(v); err == nil {
		if name := unix.SignalName(unix.Signal(n)); n > 0 && name != "" {
			return name, nil
		}
	}
	name := strings.ToUpper(v)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if unix.SignalNum(name) != 0 || realTime.MatchString(name) {
		return name, nil
	}
	return "", refuse("Write a name such as SIGTERM or SIGQUIT", "%q isn't a signal", clip(v))
}

// realTime are the signals 34 to 64 as they are written.
var realTime = regexp.MustCompile(`^SIGRT(MIN(\+(1[0-5]|[1-9]))?|MAX(-(1[0-4]|[1-9]))?)$`)

// ulimitNames are the limits that setrlimit knows.
var ulimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
	"nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

// capabilities are those of Linux 6.x, capabilities(7).
var capabilities = []string{
	"ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF",
	"CHECKPOINT_RESTORE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER",
	"FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE",
	"MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP",
	"SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE",
	"SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE",
	"SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
}

func checkCapability(v string) error { _, err := parseCapability(v); return err }

// parseCapability returns "CAP_NET_ADMIN" or "ALL".
func parseCapability(v string) (string, error) {
	name := strings.TrimPrefix(strings.ToUpper(v), "CAP_")
	switch {
	case !slices.Contains(capabilities, name):
		return "", refuse("See man 7 capabilities", "%q isn't a Linux capability", clip(v))
	case name == "ALL":
		return name, nil
	}
	return "CAP_" + name, nil
}
