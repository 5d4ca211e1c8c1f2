package manifest

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var kindLogDriver = kind{shape: shapeText, check: checkLogDriver}

func checkLogDriver(v string) error {
	switch v {
	case "", "json-file", "local", "journald", "syslog":
		return nil
	case "none":
		return refuse("Bound the log with max-size and max-file instead", "the output of every container is kept, so that a failure can be read")
	}
	return refuse("Use journald or syslog, or let a collector read dunnage's log files or dunnage logs -f --json", "dunnage writes the logs itself and has no driver %q", clip(v))
}

// logging reads the options of the log, of which the walk has checked the driver.
func (c *converter) logging(name string, in *types.LoggingConfig) spec.Logging {
	var l spec.Logging
	if in == nil {
		return l
	}
	switch in.Driver {
	case "journald":
		l.Forward.To = spec.Journald
	case "syslog":
		l.Forward.To = localSyslog
	}
	for _, k := range sorted(in.Options) {
		if err := logOption(&l, in.Driver, k, in.Options[k]); err != nil {
			c.failAt(err, "services", name, "logging", "options", k)
		}
	}
	return l
}

// logOption reads one option; those of a syslog only with its driver.
func logOption(l *spec.Logging, driver, k, v string) (p *problem) {
	option := k
	if strings.HasPrefix(k, "syslog-") && driver != "syslog" {
		option = ""
	}
	switch option {
	case "max-size":
		l.MaxSize, p = logSize(v)
	case "max-file":
		n, err := strconv.Atoi(v)
		if l.MaxFile = n; err != nil || n < 1 || n > maxLogFiles {
			p = refuse("Write it as 3", "%q isn't a number of log files from 1 to %d", clip(v), maxLogFiles)
		}
	case "compress":
		on, ok := bools[strings.ToLower(v)]
		if l.Compress = toggle(on); !ok {
			p = refuse("Write it as \"true\" or \"false\"", "%q is neither", clip(v))
		}
	case "tag":
		l.Forward.Tag, p = v, checkLogTag(v)
	case "syslog-address":
		l.Forward.To, p = syslogAddress(v)
	case "syslog-facility":
		if l.Forward.Facility = v; !slices.Contains(spec.SyslogFacilities, v) {
			p = refuse("Use one of "+strings.Join(spec.SyslogFacilities, ", "), "syslog has no facility %q", clip(v))
		}
	case "syslog-format":
		if l.Forward.Format = v; v != "rfc5424" && v != "rfc3164" {
			p = refuse("Use rfc5424 or rfc3164", "syslog's format %q isn't written", clip(v))
		}
	default:
		p = refuse("Use max-size, max-file, compress and tag, and with the driver syslog syslog-address, syslog-facility and syslog-format", "dunnage's log has no option %q for this driver", clip(k))
	}
	return p
}

func toggle(on bool) spec.Toggle {
	if on {
		return spec.On
	}
	return spec.Off
}

// logTags are what a tag may have of Docker's templates.
var logTags = []string{"{{.Name}}", "{{.ID}}", "{{.FullID}}", "{{.ImageName}}"}

func checkLogTag(v string) *problem {
	rest := v
	for _, t := range logTags {
		rest = strings.ReplaceAll(rest, t, "")
	}
	if strings.Contains(rest, "{{") || strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(v) > 128 {
		return refuse("Use plain text and "+strings.Join(logTags, ", "), "the tag %q can't be made", clip(v))
	}
	return nil
}

// localSyslog is the socket that programs of this host log to.
const localSyslog = "unix:///dev/log"

// syslogAddress reads the address of a syslog as Docker writes it. Names aren't
// taken: a log writer must not wait for a name server.
func syslogAddress(v string) (string, *problem) {
	const next = "Write it as udp://127.0.0.1:514, tcp://[2001:db8::1]:514 or unix:///dev/log"
	u, err := url.Parse(v)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", refuse(next, "%q isn't the address of a syslog", clip(v))
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if u.Host != "" || !path.IsAbs(u.Path) || len(u.Path) > 107 {
			return "", refuse(next, "%q isn't the path of a socket", clip(v))
		}
		return "unix://" + path.Clean(u.Path), nil
	case "udp", "tcp":
		host, port := u.Hostname(), u.Port()
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if port == "" {
			port = "514"
		}
		a, err := netip.ParseAddr(host)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || u.Path != "" || a.Zone() != "" {
			return "", refuse(next, "%q is no address with a port", clip(v))
		}
		return u.Scheme + "://" + netip.AddrPortFrom(a, uint16(n)).String(), nil
	case "tcp+tls":
		return "", refuse("Forward to a syslog of this host, and let that one encrypt", "lines aren't encrypted on their way")
	}
	return "", refuse(next, "%q isn't the address of a syslog", clip(v))
}

var kindLogForward = kind{shape: shapeText, check: checkLogForward, what: "journald or the address of a syslog"}

func checkLogForward(v string) error {
	if _, p := logForward(v); p != nil {
		return p
	}
	return nil
}

// logForward reads where the host's owner wants lines: journald, syslog, or
// syslog's address, of which the scheme syslog means UDP.
func logForward(v string) (string, *problem) {
	switch rest, ok := strings.CutPrefix(v, "syslog://"); {
	case v == spec.Journald:
		return v, nil
	case v == "syslog":
		return localSyslog, nil
	case ok:
		v = "udp://" + rest
	}
	to, p := syslogAddress(v)
	if p != nil {
		p.hint = "Write it as journald, syslog, syslog://127.0.0.1:514 or tcp://[2001:db8::1]:514"
	}
	return to, p
}

const maxLogFiles = 1000

// smallestLog is what the log writer takes a smaller size for: who wrote one
// forgot the unit.
const smallestLog = 4 << 10

func logSize(v string) (int64, *problem) {
	n, err := parseSize(v)
	switch {
	case err != nil:
		return 0, refuse("Write it as 10m", "%q isn't the size of a log file", clip(v))
	case n < smallestLog:
		return 0, refuse("Use 4k or more, such as 10m", "a file of %q holds no log", clip(v))
	}
	return n, nil
}

type composeLogging struct {
	Driver  string          `yaml:"driver,omitempty"`
	Options ordered[string] `yaml:"options,omitempty"`
}

func encodeLogging(l spec.Logging) *composeLogging {
	var out composeLogging
	add := func(there bool, key, value string) {
		if there {
			out.Options = append(out.Options, pair[string]{key, value})
		}
	}
	add(l.MaxSize > 0, "max-size", strconv.FormatInt(l.MaxSize, 10))
	add(l.MaxFile > 0, "max-file", strconv.Itoa(l.MaxFile))
	add(l.Compress != "", "compress", fmt.Sprint(l.Compress == spec.On))
	add(l.Forward.Tag != "", "tag", l.Forward.Tag)
	switch f := l.Forward; f.To {
	case "":
	case spec.Journald:
		out.Driver = f.To
	default:
		out.Driver = "syslog"
		add(f.To != localSyslog, "syslog-address", f.To)
		add(f.Facility != "", "syslog-facility", f.Facility)
		add(f.Format != "", "syslog-format", f.Format)
	}
	if out.Options == nil && out.Driver == "" {
		return nil
	}
	return &out
}
