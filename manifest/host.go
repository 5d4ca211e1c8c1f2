package manifest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"dunnage/spec"
)

// hostFileKeys are the keys of the agent's own file.
var hostFileKeys = []key{
	yes("disk", kindMap, "What dunnage may keep on disk. `dunnage df` shows it."),
	yes("disk.budget", kindBudget, "Ceiling of images, writable layers, logs and state together, such as `40G`; volumes don't count. 64M or more. Without it none."),
	yes("disk.keep_releases", kindKeepReleases, "Newest releases of a project that stay for a rollback, with their images, the present one and failed ones included: 1 to 100. Beside them stay the last two that ran, and the last one that ran with another image. Default 10."),
	yes("logs", kindMap, "Of services that don't set them with `logging.options`."),
	yes("logs.max-size", kindLogSize, "Bytes of a log file until it is rotated, in units of 1024: 4k or more. Default 10m."),
	yes("logs.max-file", kindLogFiles, "Files of a replica that stay, the one that is written included: 1 to 1000. Default 3."),
	yes("logs.compress", kindBool, "Whether files that aren't written any more are compressed, when the log is quiet. Default true."),
	yes("logs.forward", kindLogForward, "Where lines go too: `journald`, `syslog` (`/dev/log`) or the address of one, `syslog://127.0.0.1:514` or `tcp://10.0.0.5:514`. Default nowhere."),
	yes("metrics", kindMap, "Prometheus' metrics; on the agent's socket they are always there."),
	yes("metrics.listen", kindLoopback, "Loopback address that they are served at too, such as `127.0.0.1:9477`. Whoever can use the port can read them."),
}

var hostFileRules = addRules(&rule{known: true, own: true, key: key{shape: shapeMap}}, hostFileKeys)

var (
	kindBudget       = kind{shape: textOrInt, check: checkBudget, what: "a size, such as 40G"}
	kindKeepReleases = kind{shape: textOrInt, check: checkRange(1, 100), what: "a whole number"}
	kindLogSize      = kind{shape: textOrInt, check: checkLogSize, what: "a size, such as 10m"}
	kindLogFiles     = kind{shape: textOrInt, check: checkRange(1, maxLogFiles), what: "a whole number"}
	kindLoopback     = kind{shape: shapeText, check: checkLoopback, what: "an address with a port, such as 127.0.0.1:9477"}
)

// smallestBudget: below it not one real image fits.
const smallestBudget = 64 << 20

func checkBudget(v string) error {
	n, err := parseSize(v)
	if err == nil && n < smallestBudget {
		return refuse("Use 64M or more, such as 40G, or remove the key for none", "a budget of %q holds no image", clip(v))
	}
	return err
}

func checkRange(least, most int) check {
	return func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n < least || n > most {
			return refuse(fmt.Sprintf("Use %d to %d", least, most), "%q is out of range", clip(v))
		}
		return nil
	}
}

func checkLogSize(v string) error {
	if _, p := logSize(v); p != nil {
		return p
	}
	return nil
}

func checkLoopback(v string) error {
	a, err := netip.ParseAddrPort(v)
	switch {
	case err != nil || a.Port() == 0:
		return refuse("Write it as 127.0.0.1:9477", "%q isn't an address with a port", clip(v))
	case !a.Addr().IsLoopback():
		return refuse("Use 127.0.0.1 or [::1], and put what authenticates in front", "%s can be reached from other machines, and nobody is asked who they are there", a.Addr())
	}
	return nil
}

// LoadHost reads the agent's own file. A problem in it is an *Error; all of them
// come together as Errors.
func LoadHost(path string) (spec.HostConfig, error) {
	var c spec.HostConfig
	data, err := readRegular(path)
	if err != nil {
		return c, fmt.Errorf("read the agent's configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return c, err
	}
	r := newReport()
	w := walker{report: r, env: map[string]string{}}
	for _, l := range parse(source{name: path, path: abs, data: data}, ofHost, r) {
		if !w.value(l.root, hostFileRules, "") {
			continue
		}
		readHost(&c, l.root)
	}
	return c, r.err()
}

// readHost takes what the walk has checked.
func readHost(c *spec.HostConfig, t *tree) {
	text := func(path ...string) (string, bool) {
		_, at, ok := t.find(path...)
		if !ok || at.null() {
			return "", false
		}
		return at.value, true
	}
	if v, ok := text("disk", "budget"); ok {
		c.Disk.Budget, _ = parseSize(v)
	}
	if v, ok := text("disk", "keep_releases"); ok {
		c.Disk.KeepReleases, _ = strconv.Atoi(v)
	}
	if v, ok := text("logs", "max-size"); ok {
		c.Logs.MaxSize, _ = logSize(v)
	}
	if v, ok := text("logs", "max-file"); ok {
		c.Logs.MaxFile, _ = strconv.Atoi(v)
	}
	if v, ok := text("logs", "compress"); ok {
		c.Logs.Compress = toggle(bools[strings.ToLower(v)])
	}
	if v, ok := text("logs", "forward"); ok {
		c.Logs.Forward.To, _ = logForward(v)
	}
	if v, ok := text("metrics", "listen"); ok {
		c.Metrics, _ = netip.ParseAddrPort(v)
	}
}
