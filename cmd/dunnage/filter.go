package main

import (
	"slices"
	"strings"

	"dunnage/spec"
)

// filters are what `ps --filter` asks for: all of them must hold.
type filters []func(spec.ReplicaStatus) bool

// closed are the values of filters that have only some.
var closed = map[string][]string{
	"state":  {"created", "starting", "ready", "unhealthy", "unreachable", "draining", "warm", "held", "stopping", "stopped", "completed", "backoff", "failed", "lost"},
	"health": {"starting", "healthy", "unhealthy"},
}

// parseFilters reads KEY=VALUE texts, as docker has them.
func parseFilters(texts []string) (filters, error) {
	var out filters
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		of, known := map[string]func(spec.ReplicaStatus) string{
			"project": func(r spec.ReplicaStatus) string { return r.Project },
			"service": func(r spec.ReplicaStatus) string { return r.Service },
			"state":   func(r spec.ReplicaStatus) string { return string(r.State) },
			"health":  func(r spec.ReplicaStatus) string { return string(r.Health) },
		}[key]
		switch {
		case ok && value != "" && key == "label":
			out = append(out, func(r spec.ReplicaStatus) bool { return labelled(r.Labels, value) })
		case ok && known && closed[key] != nil && !slices.Contains(closed[key], value):
			return nil, &usageError{
				message: "--filter " + quote(text) + ": there is no such " + key,
				hint:    "write one of " + strings.Join(closed[key], ", "),
			}
		case ok && known:
			out = append(out, func(r spec.ReplicaStatus) bool { return of(r) == value })
		default:
			return nil, &usageError{
				message: "--filter " + quote(text) + " isn't a filter",
				hint:    "write label=NAME, label=NAME=VALUE, project=, service=, state= or health=",
			}
		}
	}
	return out, nil
}

// labelled reports whether the labels have NAME or NAME=VALUE.
func labelled(labels map[string]string, want string) bool {
	name, value, valued := strings.Cut(want, "=")
	got, ok := labels[name]
	return ok && (!valued || got == value)
}

// apply leaves only the replicas that pass in a snapshot, and only the services
// that have one. Without a filter everything stays.
func (f filters) apply(st *spec.Status) {
	if len(f) == 0 {
		return
	}
	fails := func(r spec.ReplicaStatus) bool {
		return slices.ContainsFunc(f, func(holds func(spec.ReplicaStatus) bool) bool { return !holds(r) })
	}
	for i := range st.Projects {
		p := &st.Projects[i]
		for j := range p.Services {
			p.Services[j].Replicas = slices.DeleteFunc(p.Services[j].Replicas, fails)
		}
		p.Services = slices.DeleteFunc(p.Services, func(s spec.ServiceStatus) bool { return len(s.Replicas) == 0 })
	}
}

// filteredBy lists what filters ask for under the key.
func filteredBy(key string, texts []string) (names []string) {
	for _, text := range texts {
		if name, ok := strings.CutPrefix(text, key+"="); ok {
			names = append(names, name)
		}
	}
	return names
}
