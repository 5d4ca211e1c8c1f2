package orchestrator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// answers is what the agent knows beside the rules.
type answers struct {
	status  spec.Status
	reach   []spec.Reach
	desired plan.Desired
}

// explain fills in who answers, and says of each way and of all what to think of
// it and what to do.
func (a answers) explain(e *spec.Explanation) {
	for i := range e.Ways {
		w := &e.Ways[i]
		if w.Service != "" && !slices.Contains(e.Services, w.Service) {
			e.Services = append(e.Services, w.Service)
			e.Replicas = append(e.Replicas, a.replicas(w.Service)...)
		}
	}
	for i := range e.Ways {
		w := &e.Ways[i]
		a.who(w)
		w.Stale = a.stale(*w)
		w.Reached = a.visited(*w)
		v := a.verdict(*w, e.Holder)
		w.Verdict, w.OK = v.text, v.ok
		for _, n := range append(v.next, a.staleNext(*w)...) {
			if !slices.Contains(e.Next, n) {
				e.Next = append(e.Next, n)
			}
		}
	}
	e.OK, e.Verdict = true, e.Ways[0].Verdict
	for _, w := range e.Ways {
		if !w.OK && e.OK {
			e.OK, e.Verdict = false, w.Verdict
		}
	}
}

func (a answers) replicas(service string) []spec.ReplicaStatus {
	var out []spec.ReplicaStatus
	for _, p := range a.status.Projects {
		for _, s := range p.Services {
			if p.Name+"/"+s.Name == service {
				out = append(out, s.Replicas...)
			}
		}
	}
	return out
}

// at finds who has an address.
func (a answers) at(addr netip.Addr) (spec.ReplicaStatus, bool) {
	for _, p := range a.status.Projects {
		for _, s := range p.Services {
			for _, r := range s.Replicas {
				if slices.Contains(r.Addresses, addr) {
					return r, true
				}
			}
		}
	}
	return spec.ReplicaStatus{}, false
}

// who names the replicas that packets arrive at.
func (a answers) who(w *spec.ExplainedWay) {
	for i := range w.Reach {
		if r, ok := a.at(w.Reach[i].To.Addr()); ok {
			w.Reach[i].Replica = r.Replica
		}
	}
}

// stale lists the connections that lead where nobody answers any more. Those of a
// replica that drains are well.
func (a answers) stale(w spec.ExplainedWay) []string {
	var out []string
	proto := strings.ToUpper(string(w.Packet.Protocol))
	for _, f := range w.Flows {
		r, ok := a.at(f.Answers)
		to := f.Answers.String()
		switch {
		case ok && r.Pid > 0:
			continue
		case ok:
			to += ", which is " + r.Replica + " (" + string(r.State) + ")"
		case f.Answers == w.Packet.To.Addr() && w.Service == "":
			continue
		case f.Answers == w.Packet.To.Addr():
			to = "the host itself: they began before the port was published"
		default:
			to += ", which is no replica's"
		}
		count := fmt.Sprintf("%d %s connections lead", f.Count, proto)
		if f.Count == 1 {
			count = fmt.Sprintf("1 %s connection leads", proto)
		}
		out = append(out, count+" to "+to)
	}
	return out
}

func (a answers) staleNext(w spec.ExplainedWay) []string {
	if len(w.Stale) == 0 || w.Service == "" {
		return nil
	}
	return []string{fmt.Sprintf("`conntrack -D -p %s --orig-dst %s --orig-port-dst %d` ends the connections that lead nowhere, so that their clients connect anew",
		w.Packet.Protocol, w.Packet.To.Addr(), w.Packet.To.Port())}
}

// visited is what the visitor found at the same address, or at another one of the
// family that the port is published on.
func (a answers) visited(w spec.ExplainedWay) *spec.Reach {
	var near *spec.Reach
	for i, r := range a.reach {
		if r.From != w.Packet.From || w.Service != r.Project+"/"+r.Service || w.Packet.Protocol != spec.TCP {
			continue
		}
		if r.Addr == w.Packet.To {
			return &a.reach[i]
		}
		if r.Port == w.Packet.To.Port() && r.Port > 0 && r.Addr.Addr().Is6() == w.Packet.To.Addr().Is6() {
			near = &a.reach[i]
		}
	}
	return near
}

// verdict is what to think of a way, and what to do.
type verdict struct {
	text string
	ok   bool
	next []string
}

func (a answers) verdict(w spec.ExplainedWay, holder string) verdict {
	ends := dying(w.Trace)
	switch w.Fate {
	case spec.FateArrives:
		return a.arrives(w, holder)
	case spec.FateHeld:
		return verdict{text: "no replica of " + w.Service + " is ready: connections wait" + a.hold(w.Service), next: a.look(w.Service)}
	case spec.FatePartly:
		return verdict{text: "some connections die: " + w.Dies, next: a.partly(ends)}
	case spec.FateMaybe:
		v := verdict{text: "some connections may die: " + w.Dies, next: blocked(w, ends)}
		if closed(w.Trace) {
			v.text, v.next = "only clients on the allow list of "+w.Service+" get through", nil
			v.ok = a.arrives(w, holder).ok
		}
		if !w.Packet.Source.IsValid() && w.Packet.From == spec.FromOutside {
			v.next = append(v.next, "`--from ADDRESS` says it for one client")
		}
		return v
	}
	switch {
	case closed(w.Trace):
		return verdict{text: fmt.Sprintf("%s isn't on the allow list of %s: refused", w.Packet.Source, w.Service), next: []string{"`x-dunnage.allow` of the service says who may use its ports"}}
	case len(ends) > 0 && ends[0].Owner == spec.OwnerDunnage && w.Service != "" && !strings.Contains(ends[0].Where, "DUNNAGE-TO"):
		return verdict{text: "no replica of " + w.Service + " takes connections: they are refused", next: a.look(w.Service)}
	}
	word := "dropped"
	if w.Fate == spec.FateRefused {
		word = "refused"
	}
	return verdict{text: fmt.Sprintf("connections are %s by %s%s", word, w.Dies, whose(ends)), next: blocked(w, ends)}
}

// arrives judges a way to its end: it should lead to replicas that are ready, and
// the visitor should have been there.
func (a answers) arrives(w spec.ExplainedWay, holder string) verdict {
	var ready, others []string
	for _, r := range w.Reach {
		switch status, known := a.at(r.To.Addr()); {
		case known && (status.State == spec.StateReady || status.State == spec.StateUnreachable): // what the visitor found stands below
			ready = append(ready, spec.ShortReplica(status.Service, status.Replica))
		case known:
			others = append(others, fmt.Sprintf("%s, which is %s", status.Replica, status.State))
		case r.Host && w.Service == "":
			return a.onHost(w, holder)
		case r.Host:
			return verdict{text: fmt.Sprintf("%s: nothing leads to a replica of %s; the host itself is asked", w.Packet.To, w.Service), next: []string{"`dunnage net rules --diff` shows what is missing; a running agent repairs it within a second", "`dunnage events` says whether another tool has removed it"}}
		default:
			return verdict{text: fmt.Sprintf("connections go to %s, which is no replica's%s", r.To, sentBy(w.Trace)), next: redirected(w)}
		}
	}
	slices.Sort(ready)
	switch {
	case len(others) > 0:
		return verdict{text: "connections reach " + strings.Join(append(others, ready...), "; "), next: a.look(w.Service)}
	case w.Reached != nil && w.Reached.State == spec.ReachUnreachable:
		return verdict{text: fmt.Sprintf("the rules lead to %s, but the visitor gets no answer: %s", strings.Join(ready, ", "), w.Reached.Detail),
			next: append(a.look(w.Service), "does the program listen on the container's address, not on its 127.0.0.1 alone, and on the port that is published?")}
	}
	return verdict{text: "connections reach " + strings.Join(ready, ", "), ok: true}
}

// onHost judges what is for the host itself.
func (a answers) onHost(w spec.ExplainedWay, holder string) verdict {
	port := fmt.Sprintf("port %d/%s", w.Packet.To.Port(), w.Packet.Protocol)
	if holder != "" {
		return verdict{text: port + " isn't published by dunnage; " + holder + " listens on the host", ok: true}
	}
	return verdict{text: port + " isn't published, and nobody on the host listens: refused", next: []string{"`ports:` of a service publishes it; `dunnage ps` lists what is published"}}
}

func (a answers) hold(service string) string {
	for _, p := range a.desired.Projects {
		for _, s := range p.Release.Project.Services {
			if p.Record.Name+"/"+s.Name == service && s.Hold > 0 {
				return " for up to " + s.Hold.Std().String()
			}
		}
	}
	return ""
}

// look says where to look for why replicas aren't ready.
func (a answers) look(service string) []string {
	project, name, ok := strings.Cut(service, "/")
	if !ok {
		return nil
	}
	return []string{fmt.Sprintf("`dunnage ps -p %s %s` says how the replicas are, `dunnage logs -p %s %s` what they write", project, name, project, name)}
}

func dying(t spec.Trace) []spec.TraceStep {
	var ends []spec.TraceStep
	for _, s := range t.Steps {
		if s.Ends {
			ends = append(ends, s)
		}
	}
	slices.SortStableFunc(ends, func(a, b spec.TraceStep) int {
		switch {
		case a.Maybe == b.Maybe:
			return 0
		case a.Maybe:
			return 1
		}
		return -1
	})
	return ends
}

// closed reports whether the service's allow list has sent the packet away.
func closed(t spec.Trace) bool {
	return slices.ContainsFunc(t.Steps, func(s spec.TraceStep) bool {
		return s.Owner == spec.OwnerDunnage && strings.Contains(s.Rule, "is closed to this client")
	})
}

// whose names whose the rule is that ends it.
func whose(ends []spec.TraceStep) string {
	if len(ends) == 0 || ends[0].Owner == "" || ends[0].Owner == spec.OwnerOther || strings.HasPrefix(ends[0].Rule, "policy ") {
		return ""
	}
	if ends[0].Owner == spec.OwnerUser {
		return " (yours)"
	}
	return " (of " + string(ends[0].Owner) + ")"
}

// sentBy names who has translated the address.
func sentBy(t spec.Trace) string {
	for _, s := range t.Steps {
		if s.Owner != spec.OwnerDunnage && strings.HasPrefix(s.What, "sent on to ") {
			return fmt.Sprintf(": sent there by %s, rule %d: %s", s.Where, s.Number, s.Rule)
		}
	}
	return ""
}

func redirected(w spec.ExplainedWay) []string {
	if w.Service == "" {
		return nil
	}
	return []string{"another tool takes the port before dunnage does: remove its rule, or publish the service on another port"}
}

// blocked says what to do about the rule that ends it.
func blocked(w spec.ExplainedWay, ends []spec.TraceStep) []string {
	if len(ends) == 0 {
		return nil
	}
	s := ends[0]
	tool, table, chain := place(s.Where)
	switch {
	case s.Where == "route" && strings.Contains(s.What, "forward"):
		return []string{"the agent turns forwarding on within a second; if it stays off, look for what turns it off: `grep -r ip_forward /etc/sysctl.d /etc/sysctl.conf`"}
	case s.Where == "route":
		return []string{"`ip route get` with the address shows it; a running agent lays missing routes anew within a second"}
	case s.Owner == spec.OwnerDunnage:
		return []string{"replicas are reached by published ports, and by members of their networks: docs/rules.md, \"Who reaches whom\""}
	case s.Owner == spec.OwnerUser:
		return []string{fmt.Sprintf("it is a rule of yours: `%s -t %s -vnL %s --line-numbers` shows the chain", tool, table, chain)}
	case s.Owner == spec.OwnerUFW:
		return []string{"`ufw route allow` lets forwarded traffic through; or put what ufw shall block into DUNNAGE-USER, and let it accept the rest"}
	case s.Owner == spec.OwnerFirewalld:
		return []string{"`firewall-cmd --get-active-zones` shows the zone of the link; a zone with target ACCEPT, or `--add-forward`, lets forwarded traffic through"}
	case tool == "nft":
		return []string{fmt.Sprintf("`nft -a list chain %s %s` shows the chain: a drop there is final, so let it accept what goes to %s", table, chain, rulesLinks)}
	}
	return []string{fmt.Sprintf("`%s -t %s -vnL %s --line-numbers` shows the chain; move the rule behind dunnage's, or to DUNNAGE-USER", tool, table, chain)}
}

// rulesLinks is how links of replicas are written in rules.
const rulesLinks = "dun*"

// partly says what to do where only some replicas are reached.
func (a answers) partly(ends []spec.TraceStep) []string {
	if len(ends) > 0 && ends[0].Where == "route" {
		return []string{"a running agent lays missing routes anew within a second; `dunnage events` says what it found"}
	}
	return nil
}

// place takes a step's "iptables-nft filter FORWARD" apart.
func place(where string) (tool, table, chain string) {
	f := strings.Fields(where)
	if len(f) < 3 {
		return where, "", ""
	}
	return f[0], strings.Join(f[1:len(f)-1], " "), f[len(f)-1]
}
