package main

import (
	"context"
	"slices"

	"dunnage/api"
	"dunnage/spec"
)

// tellTroubles points in a line at what the agent knows to be wrong with the
// host or with the project's addresses: a change may well end beside it.
func (p *program) tellTroubles(ctx context.Context, agent *api.Client, project string) {
	st, err := agent.Status(ctx)
	if err != nil {
		return // the outcome has been told
	}
	if text := troubles(st, project); text != "" {
		p.warn("%s; `dunnage doctor` says more", text)
	}
}

// troubles names the first problem, and how many more there are; empty = none.
func troubles(st spec.Status, project string) string {
	all := slices.Clone(st.Problems)
	for _, pr := range st.Projects {
		for _, s := range pr.Services {
			if pr.Name == project && s.Unreachable != "" {
				all = append(all, s.Name+": "+s.Unreachable)
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	text, _ := spec.SplitProblem(all[0]) // doctor says what to do
	if more := len(all) - 1; more > 0 {
		text += ", and " + counted(more, "other problem")
	}
	return text
}
