package plan

import (
	"fmt"
	"slices"
	"strings"

	"dunnage/spec"
)

// Endpoint is the network side of a replica: its addresses and what its hosts
// file says of others. Names point to service addresses, which outlive every
// redeploy, so a client's cache of them is never stale.
func Endpoint(d Desired, p Project, s spec.Service, r spec.ReplicaRecord) spec.Endpoint {
	return spec.Endpoint{
		Replica: r.ID, Network: r.Network, Hostname: Hostname(p, s, r.Number), DomainName: s.Container.DomainName,
		Addresses: r.Addresses, Hosts: s.Container.ExtraHosts, Names: names(d, p, s), DNS: s.Container.DNS,
	}
}

// Hostname is what the manifest says, else "<service>-<number>": stable over
// redeploys, as software that keeps its hostname with its data expects. Who
// joins a network has the name that its hosts file knows; in the host's network
// it is the host's own, "".
func Hostname(p Project, s spec.Service, number int) string {
	switch {
	case s.Container.Hostname != "":
		return s.Container.Hostname
	case s.Container.Network == spec.NetworkHost:
		return ""
	case s.Container.Network == spec.NetworkService:
		if to, ok := p.Release.Project.Service(s.Container.Joins); ok {
			return Hostname(p, to, number)
		}
	}
	return fmt.Sprintf("%s-%d", s.Name, number)
}

// names lists every service that shares a network with s, each under its
// address in the first such network. Those of the own project come first: where
// another one has a service of the same name, the own is meant.
func names(d Desired, p Project, s spec.Service) []spec.NamedAddress {
	out := namesOf(p, p, s)
	shared := slices.ContainsFunc(s.Container.Networks, func(a spec.Attachment) bool {
		n, ok := p.Release.Project.Network(a.Name)
		return ok && n.Shared != ""
	})
	if !shared {
		return out
	}
	for _, other := range d.Projects {
		if other.Record.Name != p.Record.Name {
			out = append(out, namesOf(other, p, s)...)
		}
	}
	return out
}

// namesOf lists those of one project.
func namesOf(of, p Project, s spec.Service) []spec.NamedAddress {
	var out []spec.NamedAddress
	for _, other := range of.Release.Project.Services {
		for _, a := range s.Container.Networks {
			id := p.Release.Project.NetworkID(a.Name)
			i := slices.IndexFunc(other.Container.Networks, func(o spec.Attachment) bool { return of.Release.Project.NetworkID(o.Name) == id })
			if i < 0 {
				continue
			}
			lease, ok := leaseOf(of.Record, other.Name, id)
			if !ok {
				continue
			}
			known := append([]string{other.Name}, other.Container.Networks[i].Aliases...)
			if n := other.Container.ContainerName; n != "" && !slices.Contains(known, n) {
				known = append(known, n)
			}
			out = append(out, spec.NamedAddress{Addr: lease.Addr, Names: known})
			if n, ok := p.Release.Project.Network(a.Name); ok && n.IPv6 && lease.Addr6.IsValid() {
				out = append(out, spec.NamedAddress{Addr: lease.Addr6, Names: known})
			}
			break
		}
	}
	return out
}

func leaseOf(p spec.ProjectRecord, service, network string) (spec.ServiceLease, bool) {
	i := slices.IndexFunc(p.Addresses, func(l spec.ServiceLease) bool { return l.Service == service && l.Network == network })
	if i < 0 {
		return spec.ServiceLease{}, false
	}
	return p.Addresses[i], true
}

// Fingerprint tells whether two lists of names differ. It is never "".
func Fingerprint(names []spec.NamedAddress) string {
	var b strings.Builder
	b.WriteString("v1\n")
	for _, n := range names {
		fmt.Fprintln(&b, n.Addr, n.Names)
	}
	return b.String()
}
