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
			"After the verb, -f is --follow; a manifest is named before it (`dunnage -f FILE logs`) or with --file.\n\n" +
			"Example:\n   dunnage logs web -f --tail 100",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is written from now on"},
			&cli.StringFlag{Name: "tail", Aliases: []string{"n"}, Usage: "only the last `N` lines", Value: "all"},
			&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Usage: "show when each line was written"},
			&cli.BoolFlag{Name: "no-log-prefix", Usage: "don't show which replica wrote a line"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line: at, service, replica, stream, partial, text"},
		},
		Action: p.withAgent(p.logs),
	}
}

func (p *program) logs(ctx context.Context, c *cli.Context, agent *api.Client) error {
	tail, err := parseTail(c.String("tail"))
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
	r := spec.LogRequest{Project: name, Tail: tail, Follow: c.Bool("follow")}
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

func parseTail(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 {
		return 0, usagef("--tail %s: use a number of lines, or all", quote(text))
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

func (w *logWriter) head(l spec.LogLine) string {
	head := ""
	if w.prefix {
		head = w.p.paintOut(colourOf(l.Replica), printable(spec.ShortReplica(l.Service, l.Replica))+" |") + " "
	}
	if w.times {
		head += l.At.UTC().Format(time.RFC3339Nano) + " "
	}
	return head
}

// colourOf gives a replica one of the six plain colours, always the same.
func colourOf(replica string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(replica)) // never fails
	return 31 + int(h.Sum32()%6)
}
