package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dunnage/spec"
)

const cgroupRoot = "/sys/fs/cgroup"

// limiting are the controllers that limits need.
var limiting = []string{"cpu", "memory", "pids"}

// cgroups looks at the groups of the replicas that run: these, and not the agent's,
// have the limits. Where none runs, it looks at what the host has.
func (x examiner) cgroups(ctx context.Context) []spec.Finding {
	running, err := x.running(ctx)
	if err != nil {
		return []spec.Finding{wrong("see what is wrong with the agent", "the agent doesn't say what runs: %s", err)}
	}
	if found := replicaCgroups("/proc", cgroupRoot, running); len(found) > 0 {
		return found
	}
	return hostCgroups(cgroupRoot)
}

// hostCgroups looks for the controllers in the tree at root.
func hostCgroups(root string) []spec.Finding {
	version, missing := "v1", []string(nil)
	if isUnified(root) {
		version = "v2"
	}
	for _, c := range limiting {
		_, err := os.Stat(filepath.Join(root, c))
		if there := version == "v1" && err == nil || has(root, "cgroup.controllers", c); !there {
			missing = append(missing, c)
		}
	}
	switch {
	case len(missing) == len(limiting):
		return []spec.Finding{wrong("mount it, as the host's init does", "no cgroup controller is mounted in %s", root)}
	case len(missing) > 0:
		return []spec.Finding{wrong(enableInKernel(missing), "cgroup %s lacks %s: limits on it can't be set", version, strings.Join(missing, ", "))}
	}
	return fine("cgroup %s, with %s", version, strings.Join(limiting, ", "))
}

func isUnified(root string) bool {
	_, err := os.Stat(filepath.Join(root, "cgroup.controllers"))
	return err == nil
}

// has reports whether a file that lists controllers has c.
func has(dir, file, c string) bool {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return err == nil && slices.Contains(strings.Fields(string(b)), c)
}

func enableInKernel(controllers []string) string {
	return "add cgroup_enable=" + controllers[0] + " to the kernel's command line, and restart the host"
}

// lack is why limits of a replica don't hold, and what to do about it.
type lack struct{ what, next string }

// replicaCgroups looks where the kernel has the replicas' processes. Replicas that
// are gone meanwhile have none; nothing is found where all are.
func replicaCgroups(proc, root string, running []spec.ReplicaStatus) []spec.Finding {
	version, lacks := "v1", lacksSplit
	if isUnified(root) {
		version = "v2"
		lacks = func(places map[string]string, replica string) []lack { return lacksUnified(root, places[""], replica) }
	}
	var all []lack
	of := map[lack][]string{} // replicas
	seen := 0
	for _, r := range running {
		places, err := placesOf(filepath.Join(proc, fmt.Sprint(r.Pid), "cgroup"))
		if err != nil {
			continue
		}
		seen++
		for _, l := range lacks(places, r.Replica) {
			if of[l] == nil {
				all = append(all, l)
			}
			of[l] = append(of[l], r.Replica)
		}
	}
	var out []spec.Finding
	for _, l := range all {
		who := of[l][0]
		if more := len(of[l]) - 1; more > 0 {
			who += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, wrong(l.next, "limits of %s don't hold: %s", who, l.what))
	}
	if seen > 0 && len(out) == 0 {
		return fine("cgroup %s, with %s for each of %s", version, strings.Join(limiting, ", "), counted(seen, "replica"))
	}
	return out
}

// placesOf reads a process's groups: by controller with cgroup v1, under "" that of
// cgroup v2.
func placesOf(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	places := map[string]string{}
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		for c := range strings.SplitSeq(controllers, ",") {
			places[c] = group
		}
	}
	return places, nil
}

// lacksSplit is for cgroup v1, where each controller has a tree: a replica is the
// only one in its group in each. runc leaves one in containerd's group, without a
// word, in the trees that aren't mounted where containerd runs.
func lacksSplit(places map[string]string, replica string) (out []lack) {
	var absent, shared []string
	for _, c := range limiting {
		switch group, there := places[c]; {
		case !there:
			absent = append(absent, c)
		case filepath.Base(group) != replica:
			shared = append(shared, fmt.Sprintf("%s of %s", group, c))
		}
	}
	if len(absent) > 0 {
		out = append(out, lack{"cgroup v1 lacks " + strings.Join(absent, ", "), enableInKernel(absent)})
	}
	if len(shared) > 0 {
		out = append(out, lack{
			"with others it is in the cgroup " + strings.Join(shared, " and "),
			"look whether containerd sees the controllers (`nsenter -m -t $(pidof containerd) ls " + cgroupRoot + "`), then `dunnage restart` the service",
		})
	}
	return out
}

// lacksUnified is for cgroup v2: each group on the way hands controllers down, or
// doesn't.
func lacksUnified(root, group, replica string) (out []lack) {
	switch {
	case strings.Contains(group, ".."):
		return []lack{{"its cgroup is outside of what the agent sees in " + root, "start the agent in the host's cgroup namespace, outside of a container"}}
	case filepath.Base(group) != replica:
		return []lack{{"with others it is in the cgroup " + group, "see who has moved it, then `dunnage restart` the service"}}
	}
	parents := []string{root}
	for name := range strings.SplitSeq(strings.Trim(filepath.Dir(group), "/"), "/") {
		parents = append(parents, filepath.Join(parents[len(parents)-1], name))
	}
	var absent, off, files []string
	for _, c := range limiting {
		switch {
		case has(filepath.Join(root, group), "cgroup.controllers", c):
		case !has(root, "cgroup.controllers", c):
			absent = append(absent, c)
		default:
			off = append(off, "+"+c)
			for _, dir := range parents {
				if file := filepath.Join(dir, "cgroup.subtree_control"); !has(dir, "cgroup.subtree_control", c) && !slices.Contains(files, file) {
					files = append(files, file)
				}
			}
		}
	}
	if len(absent) > 0 {
		out = append(out, lack{"cgroup v2 lacks " + strings.Join(absent, ", "), enableInKernel(absent)})
	}
	if len(off) > 0 {
		slices.Sort(files) // a group gets from the one above it
		out = append(out, lack{
			fmt.Sprintf("the cgroups in %s lack %s", filepath.Dir(group), strings.ReplaceAll(strings.Join(off, ", "), "+", "")),
			fmt.Sprintf("`echo %s | tee %s` enables what is missing, then `dunnage restart` the services", strings.Join(off, " "), strings.Join(files, " ")),
		})
	}
	return out
}
