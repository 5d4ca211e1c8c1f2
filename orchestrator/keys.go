package orchestrator

import (
	"reflect"
	"slices"
	"strings"

	"dunnage/spec"
)

// manifestKeys are the keys of a Compose file that people know fields of a
// service by, where these aren't called the same.
var manifestKeys = map[string]string{
	"replicas":         "deploy.replicas",
	"limits":           "deploy.resources.limits",
	"on_unhealthy":     "x-dunnage.on_unhealthy",
	"on_secret_change": "x-dunnage.on_secret_change",
	"update":           "deploy.update_config",
	"rollback":         "deploy.rollback_config",
	"canary":           "x-dunnage.canary",
	"drain":            "x-dunnage.drain",
	"hold":             "x-dunnage.hold",
	"keep_warm":        "x-dunnage.keep_warm",
	"max_failed":       "x-dunnage.max_failed",
	"allow":            "x-dunnage.allow",
	"sticky":           "x-dunnage.sticky",
	"ramp":             "x-dunnage.ramp",
	"disk":             "x-dunnage.disk",
	"mounts":           "volumes",
	"probes":           "healthcheck",
	"joins":            "network_mode",
	"host_pid":         "pid",
	"host_ipc":         "ipc",
	"device_rules":     "device_cgroup_rules",
	"new_privileges":   "security_opt",
	"seccomp":          "security_opt",
	"apparmor":         "security_opt",
	"files":            "configs",

	// No key, but another reason.
	"epoch":  "--force",
	"orphan": "no longer in the manifest",
}

// changedKeys lists what differs between two services, by the keys of the manifest.
func changedKeys(old, next spec.Service) []string {
	var out []string
	for _, field := range differing("", reflect.ValueOf(old), reflect.ValueOf(next)) {
		keys := []string{manifestKey(field)}
		if field == "container.probes" {
			keys = probeKeys(old.Container.Probes, next.Container.Probes)
		}
		for _, key := range keys {
			if !slices.Contains(out, key) {
				out = append(out, key)
			}
		}
	}
	return out
}

// probeKeys are the keys of the probes that differ.
func probeKeys(old, next []spec.Probe) []string {
	of := func(all []spec.Probe, key string) []spec.Probe {
		return slices.DeleteFunc(slices.Clone(all), func(p spec.Probe) bool { return probeKey(p) != key })
	}
	out := slices.DeleteFunc([]string{"healthcheck", "x-dunnage.probe", "x-dunnage.accept"}, func(key string) bool {
		return reflect.DeepEqual(of(old, key), of(next, key))
	})
	if len(out) == 0 { // what holds without any
		return []string{"healthcheck"}
	}
	return out
}

// probeKey is the key that asks for the probe; empty = it is what holds without any.
func probeKey(p spec.Probe) string {
	switch {
	case p.Kind == spec.ProbeAccept:
		return "x-dunnage.accept"
	case p.Fallback, p.Kind == spec.ProbeRunning, p.Kind == spec.ProbeImage:
		return ""
	case p.Kind == spec.ProbeExec:
		return "healthcheck"
	}
	return "x-dunnage.probe"
}

// manifestKey is the key that a field is known by, as differing names it.
func manifestKey(field string) string {
	field = strings.TrimPrefix(field, "container.")
	if key, ok := manifestKeys[field]; ok {
		return key
	}
	return field
}
