package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dunnage/engine/logwriter"
	"dunnage/test/lab"
)

// The logs that are read: each of bigLog bytes of text, a line every
// millisecond, in one plain file or in compressed ones of the default size.
const (
	bigLog       = 1 << 30
	zippedFiles  = bigLog / (10 << 20)
	logProject   = "logs"
	plainReplica = logProject + "-web-aaaaaaaa-1"
	zipReplica   = logProject + "-web-bbbbbbbb-1"
)

var logBegin = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// logTimes are from the start of the command to its first line.
type logTimes struct {
	Tail     []time.Duration `json:"tail"`
	Since    []time.Duration `json:"since"`
	ZipTail  []time.Duration `json:"compressed_tail"`
	ZipSince []time.Duration `json:"compressed_since"`
}

func (b *bench) logs(ctx context.Context) error {
	say("logs of 1 GiB, in one file and in %d compressed ones: the last lines, and from the middle on", zippedFiles)
	t, err := measureLogs(ctx, b.world, b.runs)
	if err != nil {
		return err
	}
	b.results.Raw["logs"] = t
	for _, r := range []struct {
		what  string
		took  []time.Duration
		limit time.Duration
	}{
		{"first line of logs --tail 100 of 1 GiB", t.Tail, 50 * time.Millisecond},
		{"the same, compressed", t.ZipTail, 50 * time.Millisecond},
		{"first line of logs --since in its middle", t.Since, 200 * time.Millisecond},
		{"the same, compressed", t.ZipSince, 200 * time.Millisecond},
	} {
		d := median(r.took)
		b.results.add(row{What: r.what, Must: fmt.Sprintf("<= %d ms", r.limit.Milliseconds()), Ours: fmt.Sprintf("%.0f ms", inMillis(d)), OK: d <= r.limit})
	}
	return nil
}

func measureLogs(ctx context.Context, w world, runs int) (t logTimes, err error) {
	agent, err := w.agent(ctx, "logs", 19)
	defer func() { err = errors.Join(err, agent.Lab.Down(context.WithoutCancel(ctx))) }()
	if err != nil {
		return t, err
	}
	manifest, err := write(agent.Lab, "logs.yaml", fmt.Sprintf("name: %s\nservices:\n  web:\n    image: %s\n", logProject, image("v1")))
	if err != nil {
		return t, err
	}
	if _, err := agent.Run(ctx, nil, "deploy", "-f", manifest); err != nil {
		return t, err
	}
	folder := agent.Lab.Path(filepath.Join("state/logs", logProject, "web"))
	end, err := writeBigLogs(folder)
	if err != nil {
		return t, err
	}
	middle := logBegin.Add(end.Sub(logBegin) / 2).Format(time.RFC3339Nano)
	for range runs {
		for _, q := range []struct {
			took *[]time.Duration
			args []string
		}{
			{&t.Tail, []string{plainReplica, "--tail", "100"}}, {&t.Since, []string{plainReplica, "--since", middle}},
			{&t.ZipTail, []string{zipReplica, "--tail", "100"}}, {&t.ZipSince, []string{zipReplica, "--since", middle}},
		} {
			d, err := firstLine(ctx, agent, append([]string{"logs", "-p", logProject}, q.args...)...)
			if err != nil {
				return t, err
			}
			*q.took = append(*q.took, d)
		}
	}
	return t, nil
}

// writeBigLogs writes both logs as those of replicas that are gone, and says
// when they end.
func writeBigLogs(folder string) (end time.Time, err error) {
	plain := filepath.Join(folder, plainReplica+".log")
	if end, err = writeLines(plain, logBegin, bigLog); err != nil {
		return end, err
	}
	zipped := filepath.Join(folder, zipReplica+".log")
	at := logBegin
	for n := zippedFiles; n >= 0; n-- {
		path := logwriter.Rotated(zipped, n)
		if at, err = writeLines(path, at, bigLog/(zippedFiles+1)); err != nil {
			return end, err
		}
		if n > 0 {
			err = zipLog(path, logwriter.Compressed(zipped, n))
		}
		if err != nil {
			return end, err
		}
	}
	return end, nil
}

func writeLines(path string, at time.Time, size int64) (time.Time, error) {
	f, err := os.Create(path)
	if err != nil {
		return at, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var entry []byte
	for i, n := 0, int64(0); n < size && err == nil; i++ {
		at = at.Add(time.Millisecond)
		entry = logwriter.AppendLine(entry[:0], logwriter.Line{At: at, Stream: logwriter.Stdout, Text: fmt.Appendf(nil, "GET /page/%d 200 %s", i%977, strings.Repeat("0123456789", 12))})
		_, err = w.Write(entry)
		n += int64(len(entry))
	}
	return at, errors.Join(err, w.Flush(), f.Close())
}

func zipLog(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	w, err := os.Create(to)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	return errors.Join(logwriter.Compress(w, r), w.Close(), r.Close(), os.Remove(from))
}

// firstLine runs a command until it has printed a line.
func firstLine(ctx context.Context, a lab.Agent, args ...string) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.Program, args...)
	cmd.Env = append(os.Environ(), "DUNNAGE_HOST="+a.URL())
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	took = time.Since(begun)
	cancel()
	_ = cmd.Wait() // it was killed
	if err != nil {
		return 0, fmt.Errorf("%s printed %q: %w: %s", strings.Join(args, " "), line, err, problems.String())
	}
	return took, nil
}
