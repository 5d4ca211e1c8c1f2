package orchestrator

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// hold decides whether the loop may act. What a crash leaves belongs to a
// project that the store knows, since projects are stored first and never
// forgotten, and a container has a record, which is made before it and dropped
// after it; what has none says that this is the wrong store.
func (l *Loop) hold(o plan.Observed) {
	text := ""
	if ids := l.strangers(o); len(ids) > 0 && !l.cfg.RemoveUnknown {
		text = l.describeStrangers(ids)
	}
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

func (l *Loop) describeStrangers(ids []string) string {
	why := "it is another one, or older than they are"
	if len(l.state.projectNames()) == 0 {
		why = "it is new"
	}
	example := ids[0]
	if len(ids) > 1 {
		example += ", ..."
	}
	return fmt.Sprintf("the agent holds: the store in %s doesn't know %s that it finds on this host (%s): %s. "+
		"Start it with the right --state-dir, restore dunnage.db, or start it once with --remove-unknown to remove them",
		l.cfg.StateDir, counted(len(ids), "replica"), example, why)
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
