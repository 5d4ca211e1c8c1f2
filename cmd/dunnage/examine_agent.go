package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dunnage/engine"
	"dunnage/engine/logfile"
	"dunnage/metrics"
	"dunnage/netns"
	"dunnage/orchestrator"
	"dunnage/spec"
)

// examiner is doctor's part that needs the agent's eyes.
type examiner struct {
	options agentOptions
	managed bool // containerd is the agent's own
	engine  *engine.Engine
	network *netns.Network
	loop    *orchestrator.Loop
	numbers *metrics.Server // nil = on no address beside the socket
}

func ownerOf(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}

// Examine looks at the host and at what the agent keeps there; with fix it
// removes what belongs to nobody.
func (x examiner) Examine(ctx context.Context, fix bool) ([]spec.Finding, error) {
	checks := []check{
		{"agent", x.itself},
		{"containerd", x.asking(x.containerd)},
		{"ports", x.ports},
		{"sysctls", x.sysctls},
		{"metrics", x.metrics},
		{"logs", x.logs},
		{"connections", func(ctx context.Context) []spec.Finding { return x.strays(ctx, fix) }},
	}
	limit := examineTime
	if fix { // the removal of a layer takes its time
		limit = fixTime
	}
	checks = append(checks, check{"leftovers", x.asking(func(ctx context.Context) []spec.Finding { return x.leftovers(ctx, fix) })})
	return examine(ctx, limit, append(checks, hostChecks(x.options, x.cgroups)...)), nil
}

// muteTime is what a check that asks containerd gets while that doesn't answer the
// agent either, so that doctor's answer is there within a second.
const muteTime = 700 * time.Millisecond

// asking is a check that asks containerd.
func (x examiner) asking(run func(context.Context) []spec.Finding) func(context.Context) []spec.Finding {
	return func(ctx context.Context) []spec.Finding {
		if !x.loop.EngineAnswers() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, muteTime)
			defer cancel()
		}
		return run(ctx)
	}
}

// fixTime is what removals get.
const fixTime = 20 * time.Second

func (x examiner) itself(context.Context) []spec.Finding {
	if silent := x.loop.Silence(); silent > dumpAfter/4 {
		return []spec.Finding{wrong(fmt.Sprintf("`kill -QUIT` of the agent shows what it hangs in; after %s it ends by itself, to be started anew", exitAfter), "the agent's loop hasn't come round for %s", silent.Round(time.Second))}
	}
	return fine("the agent's loop comes round")
}

// running lists the replicas that have a process.
func (x examiner) running(ctx context.Context) (out []spec.ReplicaStatus, err error) {
	st, err := x.loop.Status(ctx)
	for _, p := range st.Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if r.Pid > 0 {
					out = append(out, r)
				}
			}
		}
	}
	return out, err
}

// rotationTime is more than a rotation takes.
const rotationTime = 50 * time.Millisecond

// logs finds replicas whose output nobody writes: the kernel may have killed the
// writer for want of memory, and a program that ignores SIGPIPE goes on. Or the
// writer finds no place for its file.
func (x examiner) logs(ctx context.Context) []spec.Finding {
	replicas, err := x.running(ctx)
	if err != nil {
		return []spec.Finding{wrong("see what is wrong with the agent", "the agent doesn't say what runs: %s", err)}
	}
	var running []spec.ReplicaKey
	for _, r := range replicas {
		running = append(running, spec.ReplicaKey{ID: r.Replica, Project: r.Project, Service: r.Service})
	}
	out := logLinks(filepath.Join(x.options.stateDir, "logs"))
	writers := x.engine.LogWriters()
	for _, k := range running {
		if writers != nil && writers[k.ID] == "" && x.engine.Runs(k.ID) {
			next := fmt.Sprintf("`dunnage restart -p %s %s` gives it another one", k.Project, spec.ShortReplica(k.Service, k.ID))
			if why, first := spec.SplitProblem(x.loop.Owners().Held()); why != "" {
				next = "first " + first + ": " + why
			}
			out = append(out, wrong(next, "%s has no log writer any more: what it prints is lost", k.ID))
		}
	}
	out = append(out, writerFindings(running, x.engine.TroubledWriters())...)
	astray := func() (out []spec.Finding) {
		for _, k := range running {
			here := x.engine.LogPath(k)
			if path := writers[k.ID]; path != "" && path != here {
				out = append(out, elsewhereFindings(k.ID, path, here)...)
			} else {
				out = append(out, logFileFindings(k.ID, here)...)
			}
		}
		return out
	}
	if len(astray()) > 0 { // for a moment there is no file while it is rotated
		time.Sleep(rotationTime)
		out = append(out, astray()...)
	}
	for _, k := range running {
		path := cmp.Or(writers[k.ID], x.engine.LogPath(k))
		out = append(out, strangerFindings(k.ID, path)...)
		out = append(out, droppedFindings(k.ID, path, time.Now())...)
	}
	if len(out) == 0 {
		return fine("every replica has a log writer and its file; what was written last tells of no lines dropped since yesterday")
	}
	return out
}

// writerFindings tells of the log writers, by replica, that are there and don't do their
// work.
func writerFindings(running []spec.ReplicaKey, writers map[string]spec.LogWriter) (out []spec.Finding) {
	const blocks = "the replica will block in its next line once 64 KiB wait"
	for _, k := range running {
		switch pid := writers[k.ID].Pid; writers[k.ID].Trouble {
		case spec.WriterStopped:
			out = append(out, wrong(fmt.Sprintf("`kill -CONT %d` lets it go on", pid), "the log writer of %s, process %d, is stopped: %s", k.ID, pid, blocks))
		case spec.WriterStuck:
			out = append(out, wrong(fmt.Sprintf("`cat /proc/%d/stack` shows where it hangs; `dunnage restart -p %s %s` gives the replica another one", pid, k.Project, spec.ShortReplica(k.Service, k.ID)),
				"the log writer of %s, process %d, doesn't read what the replica prints: %s", k.ID, pid, blocks))
		case spec.WriterFails:
			out = append(out, wrong("`df -h` shows whether the log's disk is full, `dmesg` whether it answers", "the log writer of %s, process %d, writes nothing of what the replica prints, which is lost", k.ID, pid))
		}
	}
	return out
}

// logLinks tells of links in the place of projects' and services' directories.
func logLinks(logs string) (out []spec.Finding) {
	dirs := []string{logs}
	projects, _ := os.ReadDir(logs) // without logs there is no link among them
	for _, p := range projects {
		if p.IsDir() {
			dirs = append(dirs, filepath.Join(logs, p.Name()))
		}
	}
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Type() == fs.ModeSymlink {
				out = append(out, linkFinding(filepath.Join(dir, e.Name())))
			}
		}
	}
	return out
}

// linkFinding tells of one. No new replica gets a log through one that leads nowhere,
// so a deploy fails.
func linkFinding(path string) spec.Finding {
	to, _ := os.Readlink(path)
	if _, err := os.Stat(path); err != nil {
		return wrong(fmt.Sprintf("make the directory that it leads to, or remove the link (`rm %s`): the next deploy makes a directory there", path),
			"%s is a link to %s, which isn't there: replicas whose log belongs there can't start", path, to)
	}
	return warned("put a directory in the link's place, and `mount --bind` the other one on it",
		"%s is a link to %s: logs that are written there are neither counted nor ever removed, since links aren't followed for that", path, to)
}

// droppedFor is how long doctor tells of lines that a log lacks.
const droppedFor = 24 * time.Hour

// droppedFindings tells of lines that the writer couldn't write.
func droppedFindings(replica, path string, now time.Time) (out []spec.Finding) {
	d, err := logfile.Dropped(path, now.Add(-droppedFor))
	if err != nil { // whether the file can be read is asked elsewhere
		return nil
	}
	if d.Emptied != "" {
		out = append(out, warned("move away what is in the way: the next rotation keeps the lines again",
			"the log of %s was emptied, since it can't be rotated: %s", replica, d.Emptied))
	}
	if d.Lines == 0 {
		return out
	}
	return append(out, warned("`dunnage df` shows what takes the disk", "%s in the log of %s were dropped, the last before %s: %s",
		counted(d.Lines, "line"), replica, d.Last.UTC().Format(time.DateTime+" UTC"), d.Why))
}

// strangerFindings tells of what stands where the log's older files go.
func strangerFindings(replica, path string) (out []spec.Finding) {
	paths, _ := logfile.Strangers(path) // whether the directory is there is asked elsewhere
	for _, p := range paths {
		out = append(out, warned("move it away", "%s isn't a file: the log of %s can't use this name when it is rotated", p, replica))
	}
	return out
}

// elsewhereFindings tells of a replica that was started by an agent with another
// state directory: its log is there, where `dunnage logs` doesn't look.
func elsewhereFindings(replica, path, here string) []spec.Finding {
	const next = "start the agent with the --state-dir that it had then; to begin a log here, `dunnage restart` the service"
	info, err := os.Stat(path)
	switch there, _ := os.Stat(here); {
	case err != nil:
		return []spec.Finding{wrong(next, "what %s prints may be lost: an agent with another --state-dir started it, and its log isn't there: %v", replica, err)}
	case there != nil && os.SameFile(info, there): // by another name of the directory
		return nil
	}
	return []spec.Finding{warned(next, "%s writes its log to %s, since an agent with another --state-dir started it: `dunnage logs` doesn't show it", replica, path)}
}

// logFileFindings tells of a log file that isn't at its path though its replica runs.
func logFileFindings(replica, path string) []spec.Finding {
	info, err := os.Lstat(path)
	all := filepath.Dir(filepath.Dir(filepath.Dir(path))) // which the writer doesn't make
	_, missing := os.Stat(all)
	switch {
	case err == nil && info.Mode().IsRegular():
		return nil
	case err == nil:
		return []spec.Finding{wrong("move away what is there: the next line makes the file", "%s isn't a file: what %s prints is lost", path, replica)}
	case missing != nil:
		return []spec.Finding{wrong("the agent makes "+all+" anew within seconds, or its own log says why it can't", "what %s prints is lost: %v", replica, missing)}
	case errors.Is(err, fs.ErrNotExist):
		return []spec.Finding{warned("the next line makes it anew; if none does, look whether "+all+" can be written to", "the log file of %s is gone, and what was in it: %s", replica, path)}
	}
	return []spec.Finding{wrong("put a directory there: the next line makes the file", "what %s prints is lost: %v", replica, err)}
}

// containerd is asked for something real: a wedged one still says its version.
func (x examiner) containerd(ctx context.Context) []spec.Finding {
	whose, next := "the system's", "restart it; `dunnage agent --containerd-restart \"systemctl restart containerd\"` does that from now on"
	if len(x.options.restart) > 0 {
		next = fmt.Sprintf("after %s the agent runs `%s`", x.options.patience, strings.Join(x.options.restart, " "))
	}
	if x.managed {
		whose, next = "the agent's own", fmt.Sprintf("after %s the agent restarts it; containers live on", x.options.patience)
	}
	began := time.Now()
	if err := x.engine.Canary(ctx); err != nil {
		return []spec.Finding{wrong(next, "%s containerd doesn't do a small write: %s", whose, err)}
	}
	took := time.Since(began)
	version, err := x.engine.Version(ctx)
	if err != nil {
		return []spec.Finding{wrong(next, "%s", err)}
	}
	out := judge("containerd", version, knownContainerd)
	return append([]spec.Finding{{OK: true, Text: fmt.Sprintf("%s containerd %s answers a write in %s", whose, version, took.Round(100*time.Microsecond))}},
		slices.DeleteFunc(out, func(f spec.Finding) bool { return f.OK && !f.Warn })...)
}

// ports are looked at in two ways: what the visitor found at its last visits, and
// what the rules of this moment do, which it finds out some seconds later and only
// for TCP.
func (x examiner) ports(ctx context.Context) []spec.Finding {
	found, left, err := x.loop.Obstructed(ctx)
	out := obstructedFindings(found, left)
	if err != nil {
		out = append(out, warned("look again; `dunnage explain PORT` does it for one port", "whether rules of others are in the way can't be said: %v", err))
	}
	return portFindings(x.loop.Reach(), out)
}

// obstructedFindings tells of rules and routes that stop published ports.
func obstructedFindings(found []orchestrator.Obstruction, left int) []spec.Finding {
	var out []spec.Finding
	for _, o := range found {
		at := strings.Join(o.At[:min(len(o.At), 3)], ", ")
		if more := len(o.At) - 3; more > 0 {
			at += fmt.Sprintf(" and %d more", more)
		}
		next := strings.Join(o.Next, "; ")
		if next == "" {
			_, addr, _ := strings.Cut(o.At[0], " at ")
			next = "`dunnage explain " + addr + "` shows the way there"
		}
		judged := wrong
		if o.Maybe {
			judged = warned
		}
		out = append(out, judged(next, "%s: %s", at, o.Verdict))
	}
	if left > 0 {
		out = append(out, warned("`dunnage explain PORT` looks at one of them", "too many ports are published to follow the way to each: rules of others weren't looked for at %d more", left))
	}
	return out
}

// portFindings adds to what is in the way what the visitor found.
func portFindings(all []spec.Reach, out []spec.Finding) []spec.Finding {
	reached := 0
	for _, r := range all {
		switch {
		case r.Unasked != "":
			out = append(out, warned(fmt.Sprintf("`dunnage explain %d` says whether clients get through", r.Addr.Port()), "%s %s can't be visited: %s", r.Service, r.Addr, r.Unasked))
		case r.State == spec.ReachUnreachable:
			out = append(out, wrong(fmt.Sprintf("`dunnage explain %d` follows the packet to where it ends", r.Addr.Port()), "%s of %s can't be reached at %s: %s", r.Service, r.Project, r.Addr, r.Detail))
		case r.State == spec.ReachReachable:
			reached++
		}
	}
	if len(out) == 0 {
		return fine("%s visited on the way that clients take; no rule of others and no route stops all clients of a published port", counted(reached, "target"))
	}
	return out
}

// sysctls are those that replicas' traffic needs. The agent sets them and puts
// them back.
func (x examiner) sysctls(context.Context) []spec.Finding {
	names := []string{"net/ipv4/ip_forward"}
	if x.options.pool6.IsValid() {
		names = append(names, "net/ipv6/conf/all/forwarding")
	}
	out := sysctlFindings("/proc/sys", names)
	off, err := x.network.NotForwarding()
	if err != nil {
		return append(out, warned("look again", "the settings of links can't be listed: %v", err))
	}
	return withLinks(out, off)
}

// withLinks adds what is found of single links to what is found of all.
func withLinks(out []spec.Finding, off []string) []spec.Finding {
	if len(off) == 0 {
		return out
	}
	if !slices.ContainsFunc(out, func(f spec.Finding) bool { return !f.OK }) {
		out = nil // that all is well
	}
	for _, setting := range off {
		out = append(out, wrong("`sysctl -w "+setting+"=1`, and `grep -rs forwarding /etc/sysctl.conf /etc/sysctl.d` shows what may have set it; the agent puts back links of its own, dun*, alone", "%s is 0: what comes by that link is not passed on", setting))
	}
	return out
}

func sysctlFindings(root string, names []string) (out []spec.Finding) {
	for _, name := range names {
		b, err := os.ReadFile(root + "/" + name)
		dotted := strings.ReplaceAll(name, "/", ".")
		if value := strings.TrimSpace(string(b)); err != nil || value != "1" {
			out = append(out, wrong("`grep -r "+dotted+" /etc/sysctl.conf /etc/sysctl.d` shows who else sets it; the agent puts it back with the first replica", "%s is %q, and replicas' traffic needs 1", dotted, value))
		}
	}
	if len(out) == 0 {
		return fine("the kernel forwards packets")
	}
	return out
}

// idle is what an agent that holds finds of what it would change.
func idle(what, held string) spec.Finding {
	why, next := spec.SplitProblem(held)
	return warned(next, "%s, since %s", what, why)
}

// strays are connections to where nothing is. An agent that holds may have got
// the wrong store or pool: then replicas' own connections look like that.
func (x examiner) strays(ctx context.Context, fix bool) []spec.Finding {
	if why := x.loop.Owners().Held(); why != "" {
		return []spec.Finding{idle("not looked for", why)}
	}
	found, err := x.network.Strays(ctx, x.loop.Owners().Addresses())
	if err != nil {
		return []spec.Finding{wrong("see `dmesg`, and whether the agent is confined", "the kernel's connections can't be listed: %v", err)}
	}
	if len(found) == 0 {
		return fine("no connection leads to an address that nobody has")
	}
	addrs := slices.SortedFunc(maps.Keys(found), netip.Addr.Compare)
	n := 0
	for _, count := range found {
		n += count
	}
	text := fmt.Sprintf("%s to %s, which no replica has", counted(n, "connection"), addrs[0])
	if len(addrs) > 1 {
		text = fmt.Sprintf("%s to %d addresses that no replica has, %s first", counted(n, "connection"), len(addrs), addrs[0])
	}
	if fix {
		if err := x.network.ForgetStrays(ctx, addrs); err != nil {
			return []spec.Finding{wrong("`conntrack -D -d ADDRESS` does it by hand", "%s, and the kernel doesn't forget them: %v", text, err)}
		}
		return fine("forgotten: %s", text)
	}
	f := wrong("`dunnage doctor --fix` has the kernel forget them, and their clients connect anew", "stale: %s", text)
	f.Fix = text
	return []spec.Finding{f}
}

// leftovers belong to nobody. An agent that holds may have got the wrong store:
// then everything looks like that.
func (x examiner) leftovers(ctx context.Context, fix bool) []spec.Finding {
	out := x.strange()
	owners := x.loop.Owners()
	if why := owners.Held(); why != "" {
		return append(out, idle("not looked for", why))
	}
	out = append(out, x.surplus()...)
	found, err := x.engine.Leftovers(ctx, owners.Replica)
	if err != nil {
		out = append(out, warned("look again once containerd answers", "not all of them can be looked for: %v", err))
	}
	if fix {
		return append(out, x.remove(ctx, found, owners)...)
	}
	for _, l := range found {
		f := wrong("`dunnage doctor --fix` removes it", "%s: nobody owns it", l)
		f.Fix = l.String()
		out = append(out, f)
	}
	if len(out) == 0 {
		return fine("nothing is left over")
	}
	return out
}

// strange are files among the agent's own that no agent made.
func (x examiner) strange() (out []spec.Finding) {
	paths, err := x.network.Strange()
	if err != nil {
		return []spec.Finding{warned("look again", "the run directory can't be listed: %v", err)}
	}
	for _, path := range paths {
		out = append(out, warned("remove it if nobody wants it: `rm -r "+path+"`", "%s isn't the agent's, and is left alone", path))
	}
	return out
}

// surplus are routes that only the agent should make, and doesn't.
func (x examiner) surplus() (out []spec.Finding) {
	routes, err := x.network.Surplus()
	if err != nil {
		return []spec.Finding{warned("look again", "the agent's routes can't be listed: %v", err)}
	}
	for _, r := range routes {
		out = append(out, warned("`"+r.Delete+"` removes it", "route %s has the agent's protocol, 213, and the agent made none like it: it is left alone", r.Name))
	}
	return out
}

func (x examiner) remove(ctx context.Context, found []engine.Leftover, owners orchestrator.Owners) []spec.Finding {
	var out []spec.Finding
	for _, l := range found {
		if why := owners.Held(); why != "" {
			return append(out, idle("not removed", why))
		}
		if err := x.engine.RemoveLeftover(ctx, l, owners.Replica); err != nil {
			out = append(out, wrong("see why, and try again", "%v", err))
			continue
		}
		x.options.log.Warn("removed what nobody owned", "what", l.String())
		out = append(out, spec.Finding{OK: true, Text: "removed: " + l.String()})
	}
	if len(out) == 0 {
		return fine("nothing is left over")
	}
	return out
}
