package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"dunnage/spec"
)

// printable is text as one harmless line: what comes from a container (a probe's
// answer, a name) must not move the cursor or colour the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}

// leastText is how narrow a column of text may get.
const leastText = 20

// wrapped breaks text into lines for the columns of the terminal from indent on.
func (p *program) wrapped(text string, indent int) []string {
	if p.terminal.width == 0 {
		return []string{printable(text)}
	}
	return wrap(printable(text), max(p.terminal.width-indent, leastText))
}

func quote(text string) string { return strconv.Quote(text) }

// colours, as ANSI has them.
const (
	red    = 31
	green  = 32
	yellow = 33
	grey   = 90
)

// paint colours text for stderr.
func (p *program) paint(colour int, text string) string {
	return paintIf(p.terminal.stderr && !p.quietColour, colour, text)
}

// paintOut colours text for stdout.
func (p *program) paintOut(colour int, text string) string {
	return paintIf(p.terminal.stdout && !p.quietColour, colour, text)
}

func paintIf(on bool, colour int, text string) string {
	if !on || colour == 0 {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}

// age is how long ago t was, in its largest unit.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// took is a duration as people read it: 0.2s, 12.3s, 3m10s.
func took(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// size is a number of bytes.
func size(n int64) string { return spec.Bytes(n) }

// ports lists published ports as docker does: 0.0.0.0:8080->80/tcp.
func ports(list []spec.Port) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = port(p)
	}
	return strings.Join(words, ", ")
}

func port(p spec.Port) string {
	host := "0.0.0.0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	published := strconv.Itoa(int(p.Published))
	if p.Published == 0 {
		published = "?" // the agent picks one
	}
	return fmt.Sprintf("%s->%d/%s", net.JoinHostPort(host, published), p.Target, p.Protocol)
}

// shortPorts is ports without the address and protocol that most have:
// 8080->80, 127.0.0.1:53->53/udp.
func shortPorts(list []spec.Port) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = strings.TrimSuffix(strings.TrimPrefix(port(p), "0.0.0.0:"), "/tcp")
	}
	return strings.Join(words, ", ")
}

// printJSON writes v to stdout, indented.
func (p *program) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	return p.print(string(b) + "\n")
}

// printJSONLine writes v to stdout as one line, for endless output.
func (p *program) printJSONLine(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	return p.print(string(b) + "\n")
}

// print writes to stdout; a full disk or a closed pipe is an error.
func (p *program) print(text string) error {
	if _, err := p.stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// counted is "1 replica", "2 replicas".
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
