package main

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/spec"
)

func (p *program) logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "print what replicas wrote",
		ArgsUsage: "[SERVICE|REPLICA...]",
		Description: "Prints the lines of a project's replicas in order of time. A replica is named as the lines show it (web-1), or in full. Bytes come out as they were written, " +
			"as `docker logs` does it: control sequences reach the terminal.\n\n" +
			"The log of a replica is one, over its restarts. Replicas of earlier releases keep theirs, those of the last 5 generations of a service: --all shows them too, and so do --since and --until; " +
			"without these a service that has no replica shows the one that was removed last.\n\n" +
			"Times are 10m or 2d (ago), 2026-11-22T12:00:00Z, \"2026-11-22 12:00\" (here), or all. --grep searches whole lines, up to their first MiB, for an expression of RE2: " +
			"(?i) before it ignores case. All of these are asked of each line, and --tail counts what is left, for each replica.\n\n" +
			"After the verb, -f is --follow; a manifest is named before it (`dunnage -f FILE logs`) or with --file.\n\n" +
			"Example:\n   dunnage logs web -f --since 1h --grep 'ERROR|panic'",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is written from now on"},
			&cli.StringFlag{Name: "since", Usage: "only lines from `WHEN` on"},
			&cli.StringFlag{Name: "until", Usage: "only lines up to `WHEN`; --follow ends then"},
			&cli.StringFlag{Name: "tail", Aliases: []string{"n"}, Usage: "only the last `N` lines of each replica", Value: "all"},
			&cli.StringFlag{Name: "grep", Usage: "only lines that match `EXPRESSION`"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also replicas of earlier releases that are gone"},
			&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Usage: "show when each line was written"},
			&cli.BoolFlag{Name: "no-log-prefix", Usage: "don't show which replica wrote a line"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line: at, service, replica, stream, partial, text"},
		},
		Action: p.withAgent(p.logs),
	}
}

func (p *program) logs(ctx context.Context, c *cli.Context, agent *api.Client) error {
	r, err := p.logRequest(c)
	if err != nil {
		return err
	}
	name, err := p.project(c)
	if err != nil {
		return err
	}
	services, err := released(ctx, agent, name)
	if err != nil {
		return err
	}
	r.Project = name
	for _, arg := range c.Args().Slice() {
		if replica := replicaOf(name, services, arg); replica != "" && !slices.Contains(services, arg) {
			r.Replicas = append(r.Replicas, replica)
		} else {
			r.Services = append(r.Services, arg)
		}
	}
	if err := p.wantServices(c, name, services, r.Services); err != nil {
		return err
	}
	w := &logWriter{p: p, prefix: !c.Bool("no-log-prefix"), times: c.Bool("timestamps")}
	write := w.line
	if c.Bool("json") {
		write = p.logJSON
	}
	return agent.Logs(ctx, r, write)
}

// logRequest is what the flags ask for.
func (p *program) logRequest(c *cli.Context) (r spec.LogRequest, err error) {
	r = spec.LogRequest{Follow: c.Bool("follow"), All: c.Bool("all"), Grep: c.String("grep")}
	if r.Tail, err = parseTail(c.String("tail")); err != nil {
		return r, err
	}
	since, until := c.String("since"), c.String("until")
	if since != "" {
		r.All = true // also with "all", which is no time
		if r.Since, err = p.parseTime("--since", since); err != nil {
			return r, err
		}
	}
	if until != "" {
		if r.Until, err = p.parseTime("--until", until); err != nil {
			return r, err
		}
	}
	if !r.Until.IsZero() && r.Until.Before(r.Since) {
		return r, usagef("--until %s is before --since %s", quote(until), quote(since))
	}
	if _, err := r.Pattern(); err != nil {
		return r, usagef("--grep %s: %v; use an expression of RE2 such as 'ERROR|panic', and \\ before what shall be itself", quote(r.Grep), err)
	}
	return r, nil
}

func parseTail(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 {
		return 0, usagef("--tail %s: use a number of lines such as 100, or all", quote(text))
	}
	return n, nil
}

// logJSON prints a line as JSON, with its text as a string.
func (p *program) logJSON(l spec.LogLine) error {
	return p.printJSONLine(struct {
		At      time.Time `json:"at"`
		Service string    `json:"service"`
		Replica string    `json:"replica"`
		Stream  string    `json:"stream"`
		Partial bool      `json:"partial,omitempty"`
		Text    string    `json:"text"`
	}{l.At, l.Service, l.Replica, l.Stream, l.Partial, string(l.Text)})
}

// logWriter prints lines; parts of a long one are put together again as long
// as no other replica writes in between.
type logWriter struct {
	p             *program
	prefix, times bool
	open          string // replica and stream whose line isn't finished
}

func (w *logWriter) line(l spec.LogLine) error {
	var b strings.Builder
	from := l.Replica + " " + l.Stream
	if w.open != "" && w.open != from {
		b.WriteByte('\n')
	}
	if w.open != from {
		b.WriteString(w.head(l))
	}
	b.Write(l.Text)
	w.open = from
	if !l.Partial {
		w.open = ""
		b.WriteByte('\n')
	}
	return w.p.print(b.String())
}

// lineTime has all nine digits, as the log's files have: times that stand below each
// other have one width, and are sorted as text.
const lineTime = "2006-01-02T15:04:05.000000000Z07:00"

func (w *logWriter) head(l spec.LogLine) string {
	head := ""
	if w.prefix {
		head = w.p.paintOut(colourOf(l.Replica), printable(spec.ShortReplica(l.Service, l.Replica))+" |") + " "
	}
	if w.times {
		head += l.At.UTC().Format(lineTime) + " "
	}
	return head
}

// colourOf gives a replica one of the six plain colours, always the same.
func colourOf(replica string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(replica)) // never fails
	return 31 + int(h.Sum32()%6)
}
