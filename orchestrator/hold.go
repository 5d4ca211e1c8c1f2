package orchestrator

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// hold decides whether the loop may act. What a crash leaves belongs to a
// project that the store knows, since projects are stored first and never
// forgotten, and a container has a record, which is made before it and dropped
// after it; what has none says that this is the wrong store. Once the store has
// known everything, it is the right one: what appears later is left alone, told of
// and taken out of what was observed.
func (l *Loop) hold(o *plan.Observed) {
	ids := l.strangers(*o)
	if l.cfg.RemoveUnknown {
		ids = nil
	}
	text := ""
	l.appeared = ""
	switch {
	case len(ids) == 0:
		l.trusted = true
	case l.trusted:
		l.appeared = l.describeAppeared(*o, ids)
		o.Replicas = slices.DeleteFunc(o.Replicas, func(r plan.Replica) bool { return slices.Contains(ids, r.ID) })
	default:
		text = l.describeStrangers(ids)
	}
	o.Held = text != ""
	if text == l.holding() {
		return
	}
	l.held.Store(&text)
	if text == "" {
		l.cfg.Log.Info("acting: the store knows all that is here")
		return
	}
	l.cfg.Log.Error("not acting", "problem", text)
	l.events.add(spec.Event{Kind: spec.EventProblem, Message: text})
}

// strangers lists the replicas of projects that the store has never known, and
// the containers that it has no record of.
func (l *Loop) strangers(o plan.Observed) []string {
	known := l.state.projectNames()
	var ids []string
	for _, r := range o.Replicas {
		ours := func(project string) bool {
			if r.Project == "" { // only its namespace, link or files are there, which don't say
				return strings.HasPrefix(r.ID, project+"-")
			}
			return r.Project == project
		}
		if r.Exists && !r.Recorded || !slices.ContainsFunc(known, ours) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// describeAppeared says of the first of them what there is and where, and how to
// get rid of all: an agent that starts beside them would hold.
func (l *Loop) describeAppeared(o plan.Observed, ids []string) string {
	what := fmt.Sprintf("no container, but a namespace, a link or files (%s, %s, `ip -d link show`)",
		filepath.Join(l.cfg.RunDir, "netns", ids[0]), filepath.Join(l.cfg.RunDir, "replicas", ids[0]))
	if slices.ContainsFunc(o.Replicas, func(r plan.Replica) bool { return r.ID == ids[0] && r.Exists }) {
		what = "a container that no record is of"
	}
	them := "it"
	if len(ids) > 1 {
		them, what = "them", "of the first, "+what
	}
	return fmt.Sprintf("left alone, since nobody deployed %[1]s: %[2]s (%[3]s): %[4]s; start the agent once with --remove-unknown to remove %[1]s: an agent that is started without it finds %[1]s and changes nothing",
		them, counted(len(ids), "replica"), some(ids), what)
}

func (l *Loop) describeStrangers(ids []string) string {
	why := "it is another one, or older than they are"
	if len(l.state.projectNames()) == 0 {
		why = "it is new"
	}
	return fmt.Sprintf("the agent holds: the store in %s doesn't know %s that it finds on this host (%s): %s. "+
		"Start it with the right --state-dir, restore dunnage.db, or start it once with --remove-unknown to remove them",
		l.cfg.StateDir, counted(len(ids), "replica"), some(ids), why)
}

// some names the first of them.
func some(ids []string) string {
	if len(ids) > 1 {
		return ids[0] + ", ..."
	}
	return ids[0]
}

// holding says why the loop doesn't act; empty = it does.
func (l *Loop) holding() string {
	if text := l.held.Load(); text != nil {
		return *text
	}
	return ""
}

// mayChange refuses changes while the loop holds.
func (l *Loop) mayChange() error {
	if why := l.holding(); why != "" {
		return fmt.Errorf("%s: %w", why, spec.ErrRefused)
	}
	return nil
}
