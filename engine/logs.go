package engine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dunnage/engine/logfile"
	"dunnage/spec"
)

// pruneLogs deletes the logs of a service's removed replicas, k among them, but those
// of the newest generations. What can't be deleted now is tried at the next removal.
func (e *Engine) pruneLogs(k spec.ReplicaKey) {
	there := func(id string) bool { return id != k.ID && e.hasStarted(id) }
	items, err := e.serviceLogItems(k.Project, k.Service, spec.OldLogs, there)
	if err != nil {
		return
	}
	for _, l := range items {
		if len(l.Holders) == 0 {
			_ = e.cfg.removeLog(l)
		}
	}
}

func (e *Engine) hasStarted(id string) bool {
	_, ok := e.started.get(id)
	return ok
}

// Logs sends the log lines that r selects (see spec.LogRequest.All). It reads
// only files, so it works without containerd.
func (e *Engine) Logs(ctx context.Context, r spec.LogRequest, send func(spec.LogLine) error) error {
	q := logfile.Query{Tail: r.Tail, Since: r.Since, Until: r.Until, Follow: r.Follow}
	if r.Grep != "" {
		grep, err := r.Pattern()
		if err != nil {
			return err
		}
		q.Grep = grep
	}
	if name := e.unlogged(r); name != "" && !r.Follow {
		return fmt.Errorf("replica %s: %w: it has never run, or its log is gone; `dunnage ps -a` shows who is there, `dunnage logs --all` what is kept", name, spec.ErrNotFound)
	}
	return logfile.Read(ctx, func() []logfile.Source { return e.logSources(r) }, q, send)
}

// unlogged is one of the named replicas that has no log; empty = all have.
func (e *Engine) unlogged(r spec.LogRequest) string {
	kept := r
	kept.All = true
	sources := e.logSources(kept)
	for _, name := range r.Replicas {
		if !slices.ContainsFunc(sources, func(s logfile.Source) bool {
			return name == s.Replica || name == spec.ShortReplica(s.Service, s.Replica)
		}) {
			return name
		}
	}
	return ""
}

// longestTail bounds a line of Tail: some programs write a megabyte of JSON.
const longestTail = 1000

// Tail returns the last lines that a replica wrote since a time, oldest first:
// one of the same content, in an earlier release, had the same name and so the
// same log. One that has been removed has its log still, for a while (see
// pruneLogs).
func (e *Engine) Tail(ctx context.Context, k spec.ReplicaKey, since time.Time, lines int) ([]string, error) {
	source := []logfile.Source{{Service: k.Service, Replica: k.ID, Path: e.cfg.logPath(k)}}
	var out []string
	open := map[string][]byte{} // stream -> what there is of its line
	end := func(stream string) {
		out = append(out, strings.ToValidUTF8(string(open[stream]), "?"))
		delete(open, stream)
	}
	err := logfile.Read(ctx, func() []logfile.Source { return source }, logfile.Query{Tail: lines, Since: since}, func(l spec.LogLine) error {
		line := open[l.Stream]
		open[l.Stream] = append(line, l.Text[:min(len(l.Text), longestTail-len(line))]...)
		if !l.Partial {
			end(l.Stream)
		}
		return nil
	})
	for _, stream := range slices.Sorted(maps.Keys(open)) { // it died in the middle of the line
		end(stream)
	}
	return out, err
}

func (e *Engine) logSources(r spec.LogRequest) []logfile.Source {
	services, err := os.ReadDir(filepath.Join(e.cfg.StateDir, "logs", r.Project))
	if err != nil { // nothing logged yet
		return nil
	}
	var out []logfile.Source
	for _, s := range services {
		out = append(out, e.serviceLogs(r, s.Name())...)
	}
	return out
}

func (e *Engine) serviceLogs(r spec.LogRequest, service string) []logfile.Source {
	paths, err := filepath.Glob(filepath.Join(e.cfg.StateDir, "logs", r.Project, service, "*.log"))
	if err != nil {
		return nil
	}
	all := r.All || !r.Since.IsZero() || !r.Until.IsZero()
	var present []logfile.Source
	var newest logfile.Source
	var newestAt time.Time
	for _, path := range paths {
		s := logfile.Source{Service: service, Replica: strings.TrimSuffix(filepath.Base(path), ".log"), Path: path}
		if !r.Wants(service, s.Replica) {
			continue
		}
		if all || e.hasStarted(s.Replica) {
			present = append(present, s)
		}
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.ModTime().After(newestAt) {
			newest, newestAt = s, info.ModTime()
		}
	}
	if len(present) == 0 && newest.Path != "" {
		return []logfile.Source{newest}
	}
	return present
}
