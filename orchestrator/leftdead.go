package orchestrator

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// stuck reports whether the services, nil = all, aren't as wanted and none of them
// gets there by itself.
func stuck(p plan.Plan, project string, services []string) bool {
	left := unsettled(p, project, services)
	return len(left) > 0 && !slices.ContainsFunc(left, func(s spec.ServiceStatus) bool { return s.LeftDead == "" })
}

// notAll is the cause of what ends before all is as wanted.
func notAll(project string, services []spec.ServiceStatus) string {
	return "not all is as asked for; " + outlook(project, services)
}

// outlook says what comes of those of the services that aren't ready: the agent
// keeps trying, but for those that their restart policy leaves dead and those whose
// accept command has failed, which runs once.
func outlook(project string, services []spec.ServiceStatus) string {
	trying := false
	var dead, refused []string
	for _, s := range services {
		switch {
		case s.Waiting == "":
		case s.LeftDead == "" && notAccepted(s):
			refused = append(refused, s.Name)
		case s.LeftDead == "":
			trying = true
		case !slices.Contains(dead, s.LeftDead):
			dead = append(dead, s.LeftDead)
		}
	}
	var none []string
	again := func(what string, services []string) {
		if len(services) > 0 {
			none = append(none, fmt.Sprintf("no further %s: `dunnage start -p %s %s` makes one", fmt.Sprintf(what, strings.Join(services, ", ")), project, strings.Join(services, " ")))
		}
	}
	again("try of %s, as the restart policy says", dead)
	again("run of the accept command of %s", refused)
	text := strings.Join(none, ", and ")
	switch {
	case text == "":
		return "the agent keeps trying"
	case trying:
		return "the agent keeps trying, with " + text
	}
	return text
}

// notAccepted reports whether an accept command is what the service failed of.
func notAccepted(s spec.ServiceStatus) bool {
	return slices.ContainsFunc(s.Replicas, func(r spec.ReplicaStatus) bool {
		return r.State == spec.StateUnhealthy && strings.HasPrefix(r.Detail, string(spec.ProbeAccept)+": ")
	})
}

// tellLeftDead tells once of each service that won't get ready by itself. What a
// rollout meets, its end tells.
func (l *Loop) tellLeftDead(now []spec.ProjectStatus) {
	told := map[string]string{}
	for _, p := range now {
		rec, _ := l.state.project(p.Name)
		if rec.Paused != "" || rec.Desired != rec.Good && !slices.Contains(rec.Failed, rec.Desired) {
			continue
		}
		for _, s := range p.Services {
			if s.LeftDead == "" {
				continue
			}
			key := p.Name + "/" + s.Name
			if told[key] = s.Waiting; l.leftDead[key] != s.Waiting {
				l.cfg.Log.Warn("left dead", "project", p.Name, "service", s.Name, "problem", s.Waiting)
				l.events.add(spec.Event{Kind: spec.EventProblem, Project: p.Name, Service: s.Name, Message: s.Name + ": " + s.Waiting})
			}
		}
	}
	l.leftDead = told
}
