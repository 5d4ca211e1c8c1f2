package logwriter

import (
	"strconv"
	"strings"
	"time"
)

// severity is syslog's, as Docker chooses it.
func (e entry) severity() int {
	if string(e.stream) == Stderr {
		return 3 // error
	}
	return 6 // informational
}

// journal is a message of the journal's native protocol
// (systemd.io/JOURNAL_NATIVE_PROTOCOL), with the fields that Docker writes and
// our own. No value has a "\n".
func (f Forward) journal(b []byte, e entry) []byte {
	field := func(key, value string) {
		b = append(append(append(append(b, key...), '='), value...), '\n')
	}
	b = append(append(append(b, "MESSAGE="...), e.text...), '\n')
	b = append(append(append(b, "SYSLOG_TIMESTAMP="...), e.stamp...), '\n')
	field("PRIORITY", strconv.Itoa(e.severity()))
	field("SYSLOG_FACILITY", strconv.Itoa(f.Facility))
	field("SYSLOG_IDENTIFIER", f.Tag)
	field("CONTAINER_TAG", f.Tag)
	field("CONTAINER_NAME", f.Replica)
	field("DUNNAGE_PROJECT", f.Project)
	field("DUNNAGE_SERVICE", f.Service)
	field("DUNNAGE_REPLICA", f.Replica)
	if e.flag == 'P' {
		field("CONTAINER_PARTIAL_MESSAGE", "true")
	}
	return b
}

// syslog5424 is a message of RFC 5424, without structured data.
func (f Forward) syslog5424(b []byte, e entry) []byte {
	b = f.priority(b, e)
	b = append(b, "1 "...)
	if n := len("2006-01-02T15:04:05.000000"); len(e.stamp) > n { // six digits at most (6.2.3)
		b = append(append(b, e.stamp[:n]...), 'Z')
	} else {
		b = append(b, e.stamp...)
	}
	b = append(append(append(b, ' '), printable(f.Host, 255)...), ' ')
	b = append(append(b, printable(f.Tag, 48)...), " - - - "...)
	return append(b, e.text...)
}

// syslog3164 is what older daemons take; without the host's name, which the
// socket of a host doesn't get.
func (f Forward) syslog3164(b []byte, e entry) []byte {
	b = f.priority(b, e)
	at, err := time.Parse(stamp, string(e.stamp))
	if err != nil {
		at = time.Now()
	}
	b = append(at.Local().AppendFormat(b, time.Stamp), ' ')
	if !strings.HasPrefix(f.To, "unix:") {
		b = append(append(b, printable(f.Host, 255)...), ' ')
	}
	b = append(append(b, printable(f.Tag, 48)...), ": "...)
	return append(b, e.text...)
}

func (f Forward) priority(b []byte, e entry) []byte {
	b = strconv.AppendInt(append(b, '<'), int64(f.Facility*8+e.severity()), 10)
	return append(b, '>')
}

// printable is a header's field: visible ASCII of a bounded length, or "-".
func printable(s string, most int) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s[:min(len(s), most)])
}
