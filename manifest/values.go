package manifest

import (
	"fmt"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	identifier = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	// partOfID is what a name must look like to be part of a containerd ID.
	partOfID = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)
	// hostLabel follows RFC 1123, and allows the underscore that Compose
	// service names have. That it has at most 63 characters is left out: the
	// count would make the expression large.
	hostLabel = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?$`)
	// accountName is what useradd takes.
	accountName = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*\$?$`)
	// imageRef is the grammar of the distribution specification: a registry,
	// a path, a tag, a digest. Its counts make it large, so it is compiled when
	// it is first needed.
	imageRef = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?` +
			`[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*` +
			`(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?$`)
	})
)

// bools are what YAML 1.1 and Compose read as a boolean.
var bools = map[string]bool{
	"true": true, "y": true, "yes": true, "on": true,
	"false": false, "n": false, "no": false, "off": false,
}

func checkBool(v string) error {
	if _, ok := bools[strings.ToLower(v)]; !ok {
		return refuse("", "%q is neither true nor false", clip(v))
	}
	return nil
}

// checkFilled refuses an empty value, often of a variable that isn't set: as a
// path it would be the project's directory.
func checkFilled(v string) error {
	if v == "" {
		return refuse("Write a value, or set the variable", "the value is empty")
	}
	return nil
}

// kindAlways is a key that may say only what holds anyway.
func kindAlways(what string) kind {
	return kind{shape: kindBool.shape, what: kindBool.what, check: func(v string) error {
		if err := checkBool(v); err != nil {
			return err
		}
		if !bools[strings.ToLower(v)] {
			return refuse("Remove the key", "%s", what)
		}
		return nil
	}}
}

// maxReplicas keeps a slip of the finger from eating the host.
const maxReplicas = 1000

func checkCount(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > maxReplicas {
		return refuse("Write one, such as 2", "%q isn't a whole number from 0 to %d", clip(v), maxReplicas)
	}
	return nil
}

// checkReplicas is checkCount without 0.
func checkReplicas(v string) error {
	if n, err := strconv.Atoi(v); err != nil || n < 1 || n > maxReplicas {
		return refuse("Write one, such as 1", "%q isn't a whole number from 1 to %d", clip(v), maxReplicas)
	}
	return nil
}

func checkPercent(v string) error {
	if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 99 {
		return refuse("Write one, such as 10", "%q isn't a whole number from 1 to 99", clip(v))
	}
	return nil
}

func parseSize(v string) (int64, error) {
	var b types.UnitBytes
	if err := b.DecodeMapstructure(v); err != nil || b < 0 {
		return 0, refuse("", "%q isn't a size, such as 64m or 1g", clip(v))
	}
	return int64(b), nil
}

func checkSize(v string) error { _, err := parseSize(v); return err }

// parseMode reads permission bits as Compose does: in YAML 0700 is octal, and
// so is a text.
func checkMode(v string) error {
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil || n > 0o7777 {
		return refuse("", "%q isn't a file mode, such as 0700", clip(v))
	}
	return nil
}

func parseDuration(v string) (time.Duration, error) {
	var d types.Duration
	if err := d.DecodeMapstructure(v); err != nil || v == "" || d < 0 {
		return 0, refuse("", "%q isn't a duration, such as 10s or 1m30s", clip(v))
	}
	return time.Duration(d), nil
}

func checkDuration(v string) error { _, err := parseDuration(v); return err }

// checkPeriod wants a duration that a loop can wait for. Docker's bound is the
// same: 1 ms.
func checkPeriod(v string) error {
	d, err := parseDuration(v)
	if err == nil && d < time.Millisecond {
		return refuse("", "%q is too short: at least 1ms", clip(v))
	}
	return err
}

func checkIP(v string) error {
	if _, err := parseIP(v); err != nil {
		return err
	}
	return nil
}

// parseIP accepts an address without a zone; brackets around IPv6 are fine.
func parseIP(v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.Trim(v, "[]"))
	if err != nil || a.Zone() != "" {
		return a, refuse("Write an address of the host, such as 127.0.0.1", "the host IP %q isn't an IP address", clip(v))
	}
	return a.Unmap(), nil
}

func checkPrefix(v string) error { _, err := parsePrefix(v); return err }

func parsePrefix(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return p, refuse("Write it as 203.0.113.7 or 203.0.113.0/24", "%q is neither an address nor a CIDR range", clip(v))
	}
	if p != p.Masked() {
		return p, refuse("Write "+p.Masked().String(), "%q has bits set beyond its prefix", clip(v))
	}
	return p, nil
}

func checkRestart(v string) error { _, err := parseRestart(v); return err }

func parseRestart(v string) (spec.RestartPolicy, error) {
	mode, count, counted := strings.Cut(v, ":")
	p := spec.RestartPolicy{Mode: spec.RestartMode(mode)}
	switch {
	case v == "":
		p.Mode = spec.RestartOnFailure
		return p, nil
	case counted && p.Mode == spec.RestartOnFailure:
		n, err := strconv.Atoi(count)
		if err == nil && n > 0 {
			p.Max = n
			return p, nil
		}
	case counted:
	case slices.Contains([]spec.RestartMode{spec.RestartNo, spec.RestartAlways, spec.RestartOnFailure, spec.RestartUnlessStopped}, p.Mode):
		return p, nil
	}
	return p, refuse("Write no, always, unless-stopped, on-failure or on-failure:N", "%q isn't a restart policy", clip(v))
}

func checkAbsolute(v string) error {
	if !path.IsAbs(v) {
		return refuse("Write it from / on", "%q isn't an absolute path in the container", clip(v))
	}
	return nil
}

func checkHostname(v string) error {
	labels := strings.Split(v, ".")
	for _, l := range labels {
		if len(v) > 253 || len(l) > 63 || !hostLabel.MatchString(l) {
			return refuse("Use letters, digits and -", "%q isn't a valid host name", clip(v))
		}
	}
	return nil
}

// checkContainerName follows the Compose Specification, which wants two characters.
func checkContainerName(v string) error {
	if len(v) < 2 || !identifier.MatchString(v) {
		return refuse("Use at least two letters, digits, _, . and -, a letter or digit first", "%q isn't a valid container name", clip(v))
	}
	return nil
}

func checkImage(v string) error {
	switch {
	case v == "":
		return refuse("Name an image, such as nginx:1.27", "the image's name is empty")
	case !imageRef().MatchString(v):
		return refuse("Write [REGISTRY/]NAME[:TAG][@DIGEST], the name in lower case", "%q isn't an image reference", clip(v))
	}
	return nil
}

func checkShellWords(v string) error {
	var words types.ShellCommand
	if err := words.DecodeMapstructure(v); err != nil {
		return refuse("Close the quotes, or write it as a list", "%q can't be split into words: %s", clip(v), err)
	}
	return nil
}

// checkVariable judges the key of a mapping; a process would read A=B as the
// variable A.
func checkVariable(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return refuse("Write KEY: VALUE", "the variable has no name")
	case strings.Contains(name, "="):
		return refuse("Write KEY: VALUE", "the name of a variable can't contain =")
	}
	return nil
}

func checkEnvItem(v string) error {
	if name, _, _ := strings.Cut(v, "="); strings.TrimSpace(name) == "" {
		return refuse("Write KEY=VALUE or KEY", "%q has no variable's name", clip(v))
	}
	return nil
}

func checkLabelItem(v string) error {
	if name, _, _ := strings.Cut(v, "="); strings.TrimSpace(name) == "" {
		return refuse("Write KEY=VALUE or KEY", "%q has no label's name", clip(v))
	}
	return nil
}

var userHint = fmt.Sprintf("Write a UID from 0 to %d or a name, and :GID or :GROUP behind it if needed", math.MaxInt32)

// checkUser takes what the engine can look up in the image.
func checkUser(v string) error {
	name, group, grouped := strings.Cut(v, ":")
	switch {
	case v == "":
		return refuse("Remove the key to run as the image's user", "the user is empty")
	case !isAccount(name), grouped && !isAccount(group):
		return refuse(userHint, "%q isn't a user", clip(v))
	}
	return nil
}

// isAccount accepts the number or the name of a user or a group. Numbers end
// where they do in Docker.
func isAccount(v string) bool {
	if strings.Trim(v, "0123456789") == "" {
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n <= math.MaxInt32
	}
	return accountName.MatchString(v)
}

func checkURLPath(v string) error {
	if !strings.HasPrefix(v, "/") || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return refuse("Write it as /healthz", "%q isn't a URL path", clip(v))
	}
	return nil
}

func checkUlimit(v string) error {
	if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < -1 {
		return refuse("", "%q isn't a limit: a whole number, or -1 for unlimited", clip(v))
	}
	return nil
}
