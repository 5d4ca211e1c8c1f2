package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dunnage/spec"
)

// Services that the desired release no longer has stay as the one to go back to
// has them, until it has converged: a release that fails takes nothing away,
// what it was to remove included.

// KeepLeaving returns the project with such services added to the desired
// release, and noted in Leaving. Those in the way of the new ones aren't kept.
func (p Project) KeepLeaving() Project {
	if !p.Rolling() || p.Good == nil {
		return p
	}
	var keep []spec.Service
	for _, s := range p.Good.Project.Services {
		_, stays := p.Release.Project.Service(s.Name)
		if stays || slices.Contains(p.Record.Held, s.Name) || p.inTheWay(s) {
			continue
		}
		if _, joins := p.Release.Project.Service(s.Container.Joins); joins {
			p.Beside = append(p.Beside, s.Name)
			continue
		}
		s.Orphan = true
		keep = append(keep, s)
	}
	// Of services that share a network, a part would be another generation.
	for len(keep) > 0 {
		with := p.with(keep)
		whole := slices.DeleteFunc(slices.Clone(keep), func(s spec.Service) bool { return with.Generation(s.Name) != p.Good.Generation(s.Name) })
		if len(whole) == len(keep) {
			p.Release = with
			for _, s := range keep {
				p.Leaving = append(p.Leaving, s.Name)
			}
			break
		}
		keep = whole
	}
	return p
}

// with is the desired release with services of the one to go back to, their
// images, networks and secrets.
func (p Project) with(services []spec.Service) spec.Release {
	out := p.Release
	out.Images = map[string]spec.PinnedImage{}
	maps.Copy(out.Images, p.Release.Images)
	out.Secrets = maps.Clone(p.Release.Secrets)
	out.Project.Services = append(slices.Clone(out.Project.Services), services...)
	out.Project.Networks = slices.Clone(out.Project.Networks)
	for _, s := range services {
		out.Images[s.Name] = p.Good.Images[s.Name]
		if pins := p.Good.Secrets[s.Name]; pins != nil {
			if out.Secrets == nil {
				out.Secrets = map[string]spec.SecretPins{}
			}
			out.Secrets[s.Name] = pins
		}
		for _, a := range s.Container.Networks {
			if n, ok := p.Good.Project.Network(a.Name); ok {
				if _, has := out.Project.Network(a.Name); !has {
					out.Project.Networks = append(out.Project.Networks, n)
				}
			}
		}
	}
	slices.SortFunc(out.Project.Services, func(a, b spec.Service) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(out.Project.Networks, func(a, b spec.Network) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// inTheWay reports whether a service of the desired release needs what only one
// can have, and the given one has it. What both had side by side in the release
// to go back to, they may go on sharing.
func (p Project) inTheWay(s spec.Service) bool {
	for _, a := range s.Container.Networks {
		if _, ok := p.Release.Project.Network(a.Name); ok && p.Release.Project.NetworkID(a.Name) != p.Good.Project.NetworkID(a.Name) {
			return true // the name means another network now
		}
	}
	held := claims(s)
	for _, next := range p.Release.Project.Services {
		before, _ := p.Good.Project.Service(next.Name)
		had := claims(before)
		if slices.ContainsFunc(claims(next), func(c string) bool { return slices.Contains(held, c) && !slices.Contains(had, c) }) {
			return true
		}
	}
	return false
}

// claims lists what a service may not have together with a stranger: host
// ports, what it writes to, its container_name, and the host's network, in which
// nobody knows what it listens on.
func claims(s spec.Service) []string {
	var out []string
	for _, port := range s.Ports {
		out = append(out, fmt.Sprintf("port %d/%s", port.Published, port.Protocol))
	}
	for _, m := range s.Container.Mounts {
		if m.Type != spec.MountTmpfs && m.Source != "" && !m.ReadOnly {
			out = append(out, "mount "+m.Source)
		}
	}
	if s.Container.ContainerName != "" {
		out = append(out, "name "+s.Container.ContainerName)
	}
	if s.Container.Network == spec.NetworkHost {
		out = append(out, "host network")
	}
	return out
}

// source is the release that has the service.
func (v *view) source() *spec.Release {
	if slices.Contains(v.project.Leaving, v.Name) {
		return v.project.Good
	}
	return &v.project.Release
}

// staysBeside reports whether the replica is of a service that is leaving and
// shares the network of one that isn't on its way out.
func (b *builder) staysBeside(r *Replica) bool {
	p, ok := b.desired.Project(r.Project)
	return ok && b.stays[r.Record.Joins] && slices.Contains(p.Beside, r.Service) && r.Generation == p.Good.Generation(r.Service)
}
