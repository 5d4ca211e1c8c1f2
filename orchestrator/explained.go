package orchestrator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

// answers is what the agent knows beside the rules.
type answers struct {
	status  spec.Status
	reach   []spec.Reach
	desired plan.Desired
	idle    string // why the agent repairs nothing now; empty = it does
	now     time.Time
}

// repairs says that the agent does what it says, or why it doesn't.
func (a answers) repairs(what string) string {
	if a.idle != "" {
		return "the agent repairs nothing now: " + a.idle
	}
	for _, p := range a.status.Problems {
		if strings.Contains(p, undoneByAnother) {
			return "the agent repairs it, but another program undoes repairs: " + p
		}
	}
	return what
}

// explain fills in who answers, and says of each way and of all what to think of
// it and what to do.
func (a answers) explain(e *spec.Explanation) {
	slices.SortStableFunc(e.Ways, func(x, y spec.ExplainedWay) int { return cmp.Compare(a.toWarm(x), a.toWarm(y)) }) // who serves comes first
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
		var to []netip.Addr
		w.Stale, to = a.stale(*w)
		w.Reached = a.visited(*w)
		v := a.verdict(*w, e.Holder)
		if w.Service == "" && isTaken(w.Trace) {
			v.text = asksFor(*w) + " isn't published by dunnage; " + v.text
		}
		if len(w.Unseen) > 0 && (v.ok || w.Fate == spec.FateArrives && w.Service != "" && !w.Away && !a.stopped(w.Service)) {
			v.text += ", as far as can be seen"
		}
		w.Verdict, w.OK = v.text, v.ok
		for _, n := range append(v.next, staleNext(*w, to)...) {
			if !slices.Contains(e.Next, n) {
				e.Next = append(e.Next, n)
			}
		}
	}
	e.Verdict, e.OK = summed(e.Ways)
}

// summed is the verdict on all ways. Where only some fail it says which, so that
// nobody takes them for all.
func summed(ways []spec.ExplainedWay) (text string, ok bool) {
	var failing, well []spec.ExplainedWay
	for _, w := range ways {
		if w.OK {
			well = append(well, w)
		} else {
			failing = append(failing, w)
		}
	}
	switch {
	case len(failing) == 0:
		return well[0].Verdict, true
	case len(well) == 0:
		return failing[0].Verdict, false
	}
	p := failing[0].Packet
	client := "from outside"
	switch {
	case p.From == spec.FromHost:
		client = "from the host itself"
	case p.Source.IsValid():
		client = "from " + p.Source.String()
	}
	which := fmt.Sprintf("%s to %s", client, p.To)
	if len(failing) > 1 {
		which = "the first " + which
	}
	return fmt.Sprintf("%d of %d ways not as it should be, %s: %s; on the others, %s", len(failing), len(ways), which, failing[0].Verdict, well[0].Verdict), false
}

func (a answers) stopped(service string) bool {
	for _, p := range a.status.Projects {
		for _, s := range p.Services {
			if p.Name+"/"+s.Name == service && s.Stopped {
				return true
			}
		}
	}
	return false
}

// completed reports whether the service is a job that has ended well.
func (a answers) completed(service string) bool {
	all := a.replicas(service)
	return len(all) > 0 && !slices.ContainsFunc(all, func(r spec.ReplicaStatus) bool { return r.State != spec.StateCompleted })
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

// called is what the replica is called beside the others of its service.
func (a answers) called(r spec.ReplicaStatus) string {
	return r.ShortName(a.replicas(r.Project + "/" + r.Service))
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

// toWarm is 1 for a way to the own address of a replica that is warm, else 0.
func (a answers) toWarm(w spec.ExplainedWay) int {
	if r, known := a.at(w.Packet.To.Addr()); known && r.State == spec.StateWarm {
		return 1
	}
	return 0
}

// who names the replicas that packets arrive at.
func (a answers) who(w *spec.ExplainedWay) {
	for i := range w.Reach {
		if r, ok := a.at(w.Reach[i].To.Addr()); ok {
			w.Reach[i].Replica = r.Replica
		}
	}
}

// stale lists the connections that lead to no replica that runs, and the addresses
// that they lead to. Those of a replica that drains are well.
func (a answers) stale(w spec.ExplainedWay) (out []string, ends []netip.Addr) {
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
		out, ends = append(out, count+" to "+to), append(ends, f.Answers)
	}
	return out, ends
}

// staleNext ends those connections, and no others of the port: who answers is
// named too.
func staleNext(w spec.ExplainedWay, ends []netip.Addr) []string {
	if w.Service == "" {
		return nil
	}
	port := ""
	if w.Packet.To.Port() != 0 {
		port = fmt.Sprintf(" --orig-port-dst %d", w.Packet.To.Port())
	}
	var out []string
	for _, to := range ends {
		out = append(out, fmt.Sprintf("`conntrack -D -p %s --orig-dst %s%s --reply-src %s` ends the stale ones alone, so that their clients connect anew",
			w.Packet.Protocol, w.Packet.To.Addr(), port, to))
	}
	return out
}

// visited is what the visitor found at the same address, or at another one of the
// family that the port is published on. That says nothing of an address that isn't
// the host's.
func (a answers) visited(w spec.ExplainedWay) *spec.Reach {
	var near *spec.Reach
	for i, r := range a.reach {
		if r.From != w.Packet.From || w.Service != r.Project+"/"+r.Service || w.Packet.Protocol != spec.TCP {
			continue
		}
		if r.Addr == w.Packet.To {
			return &a.reach[i]
		}
		if !w.Away && r.Port == w.Packet.To.Port() && r.Port > 0 && r.Addr.Addr().Is6() == w.Packet.To.Addr().Is6() {
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
	what, by := whatDies(w.Trace)
	switch {
	case a.stopped(w.Service):
		project, name, _ := strings.Cut(w.Service, "/")
		return verdict{text: w.Service + " was stopped on request: nobody answers connections", next: []string{fmt.Sprintf("`dunnage start -p %s %s` starts it", project, name)}}
	case w.Fate != spec.FateArrives && a.completed(w.Service):
		return verdict{text: w.Service + " has done its work and ended well: nobody answers connections any more", ok: true}
	case w.Away && !a.inside(w.Packet.To.Addr()) && !isTaken(w.Trace):
		return absent(w)
	case w.Service == "" && !w.Away && !isTaken(w.Trace):
		return a.onHost(w, ends, holder)
	}
	switch w.Fate {
	case spec.FateArrives:
		return a.arrives(w, holder)
	case spec.FateHeld:
		return verdict{text: "no replica of " + w.Service + " is ready: connections wait" + a.hold(w.Service), next: a.look(w.Service)}
	case spec.FatePartly:
		return verdict{text: "some " + what + " die: " + by, next: a.partly(w, ends)}
	case spec.FateMaybe:
		v := verdict{text: "some " + what + " may die: " + by, next: a.blocked(w, ends)}
		if len(ends) > 0 && isAtLink(ends[0]) {
			return v
		}
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
	return verdict{text: fmt.Sprintf("%s are %s by %s%s", what, word, by, whose(ends)), next: a.blocked(w, ends)}
}

// arrives judges a way to its end: it should lead to replicas that are ready, and
// the visitor should have been there.
func (a answers) arrives(w spec.ExplainedWay, holder string) verdict {
	var ready, others []string
	for _, r := range w.Reach {
		switch status, known := a.at(r.To.Addr()); {
		case known && (status.State == spec.StateReady || status.State == spec.StateUnreachable): // what the visitor found stands below
			ready = append(ready, a.called(status))
		case known && status.State == spec.StateWarm && r.To.Addr() == w.Packet.To.Addr(): // asked by its own address: no rule leads there
			return verdict{text: fmt.Sprintf("connections to its own address reach %s, which is warm: the rules send it none before `dunnage rollback -p %s %d`", a.called(status), status.Project, status.Release), ok: true}
		case known:
			others = append(others, fmt.Sprintf("%s, which is %s", status.Replica, status.State))
		case isTaken(w.Trace):
			return diverted(w, r)
		case r.Host && r.To.Addr() == netip.IPv6Loopback():
			text := fmt.Sprintf("%s: ports aren't published on [::1], since the kernel routes no answers to it; the host itself is asked", w.Packet.To)
			return verdict{text: text, next: []string{"ask 127.0.0.1, or another address of the host; clients that ask `localhost` fall back to 127.0.0.1"}}
		case r.Host:
			return verdict{text: fmt.Sprintf("%s: nothing leads to a replica of %s; the host itself is asked", w.Packet.To, w.Service), next: []string{"`dunnage net rules --diff` shows what is missing", a.repairs("a running agent repairs it within a second"), "`dunnage events` says whether another tool has removed it"}}
		default:
			return diverted(w, r)
		}
	}
	slices.Sort(ready)
	switch {
	case len(others) > 0:
		return verdict{text: "connections reach " + strings.Join(append(others, ready...), "; "), next: a.look(w.Service)}
	case w.Reached != nil && (w.Reached.State == spec.ReachUnreachable || w.Reached.Failed > 0 && len(w.Unseen) > 0): // what isn't seen may be why: no need to wait for three failures
		return verdict{text: fmt.Sprintf("the rules lead to %s, but the visitor gets no answer: %s", strings.Join(ready, ", "), w.Reached.Detail),
			next: slices.Concat(a.look(w.Service), []string{"does the program listen on the container's address, not on its 127.0.0.1 alone, and on the port that is published?"}, w.Unseen)}
	}
	return verdict{text: "connections reach " + strings.Join(ready, ", "), ok: true}
}

func asksFor(w spec.ExplainedWay) string {
	return fmt.Sprintf("port %d/%s", w.Packet.To.Port(), w.Packet.Protocol)
}

// absent judges what is for an address that the host hasn't: its rules have no part
// in that, whichever would end it.
func absent(w spec.ExplainedWay) verdict {
	text := fmt.Sprintf("no link of the host has the address %s: connections to it aren't for this host", w.Packet.To.Addr())
	for _, r := range w.Reach {
		if r.Link != "" {
			text += ", and leave it by " + r.Link
			break
		}
	}
	return verdict{text: text, next: []string{"`ip -brief address` lists the host's addresses: publish the port at one of those, or without an address at all of them, or give the host this one"}}
}

// onHost judges what is for the host itself, and for no service. Rules matter only
// if somebody listens.
func (a answers) onHost(w spec.ExplainedWay, ends []spec.TraceStep, holder string) verdict {
	port := asksFor(w)
	switch {
	case holder == "":
		return verdict{text: port + " isn't published, and nobody on the host listens: refused", next: []string{"`ports:` of a service publishes it; `dunnage ps` lists what is published"}}
	case w.Fate == spec.FateArrives:
		return verdict{text: port + " isn't published by dunnage; " + holder + " listens on the host", ok: true}
	}
	word := "are"
	if w.Fate == spec.FateMaybe {
		word = "may be"
	}
	what, by := whatDies(w.Trace)
	return verdict{text: fmt.Sprintf("%s isn't published by dunnage; %s listens on the host, but %s %s ended by %s%s", port, holder, what, word, by, whose(ends)), next: a.blocked(w, ends)}
}

// inside reports whether the address is a replica's or a service's, which the host
// hasn't, or only while the agent's routes are there.
func (a answers) inside(addr netip.Addr) bool {
	if _, known := a.at(addr); known {
		return true
	}
	for _, p := range a.desired.Projects {
		for _, lease := range p.Record.Addresses {
			if addr == lease.Addr || addr == lease.Addr6 {
				return true
			}
		}
	}
	return false
}

// hold says for how long connections wait: that is over when the service's time is,
// whenever they began.
func (a answers) hold(service string) string {
	for _, p := range a.status.Projects {
		for _, s := range p.Services {
			if left := s.HeldUntil.Sub(a.now).Round(time.Second); p.Name+"/"+s.Name == service && !s.HeldUntil.IsZero() && left > 0 {
				return fmt.Sprintf(", %s more at most", left)
			}
		}
	}
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

// whatDies says what is ended, and where and why: connections or, of those that
// arrive, the answers.
func whatDies(t spec.Trace) (what, by string) {
	if by, answer := strings.CutPrefix(t.Dies, "the answer: "); answer {
		return "answers", by
	}
	return "connections", t.Dies
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

// taker is the rule of somebody else that takes the packet away from ours: it
// translates the address first, or has the connection not tracked, so that nothing
// is translated.
func taker(t spec.Trace) (spec.TraceStep, bool) {
	for _, s := range t.Steps {
		if s.Owner != spec.OwnerDunnage && (strings.HasPrefix(s.What, "sent on to ") || strings.HasPrefix(s.What, "not tracked: ")) {
			return s, true
		}
	}
	return spec.TraceStep{}, false
}

func isTaken(t spec.Trace) bool {
	_, is := taker(t)
	return is
}

// diverted judges a way that leads to somebody else.
func diverted(w spec.ExplainedWay, r spec.Arrival) verdict {
	where, verb := r.To.String()+", which is no replica's", "go"
	if r.Host {
		where = r.To.String() + ", the host itself"
	}
	if r.Maybe {
		verb = "may go"
	}
	s, found := taker(w.Trace)
	if !found {
		return verdict{text: fmt.Sprintf("connections %s to %s", verb, where)}
	}
	how := "sent there by"
	if strings.HasPrefix(s.What, "not tracked: ") {
		how = "no address is translated, since they aren't tracked because of"
	}
	v := verdict{text: fmt.Sprintf("connections %s to %s: %s %s, rule %d: %s%s", verb, where, how, s.Where, s.Number, s.Rule, whose([]spec.TraceStep{s}))}
	switch {
	case w.Service == "":
	case s.Owner == spec.OwnerDocker:
		v.next = []string{"docker publishes the same port: take it from docker's container, or publish the service on another one"}
	default:
		show, remove := chainOf(s)
		v.next = []string{fmt.Sprintf("another tool takes the port before dunnage does: %s shows the chain; %s, or publish the service on another port", show, remove)}
	}
	return v
}
