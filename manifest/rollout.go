package manifest

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

func checkDeployMode(v string) error {
	switch v {
	case "replicated", "global":
		return nil
	case "replicated-job", "global-job":
		return refuse("Write restart: on-failure; the service is done when it ends well", "a service is never run a second time because it ended well, so %s would run once in all", v)
	}
	return refuse("", "%q isn't one of replicated, global", clip(v))
}

func checkEndpointMode(v string) error {
	switch v {
	case "vip":
		return nil
	case "dnsrr":
		return refuse("Remove the key", "names aren't resolved in turn: a service always has one stable address, which balances")
	}
	return refuse("", "%q isn't an endpoint mode", clip(v))
}

// alwaysTrue reports whether a constraint holds on any single Linux host.
func alwaysTrue(constraint string) bool {
	switch strings.ReplaceAll(constraint, " ", "") {
	case "node.role==manager", "node.role!=worker", "node.platform.os==linux":
		return true
	}
	return false
}

// hostConstraint is about which host of several it is.
var hostConstraint = regexp.MustCompile(`^(node\.id|node\.hostname|(node|engine)\.labels\.\S+)\s*[!=]=`)

func checkConstraint(v string) error {
	if alwaysTrue(v) || hostConstraint.MatchString(v) {
		return nil
	}
	return refuse("Remove it if the service should run here", "%q isn't true of a single Linux host, or not known to be", clip(v))
}

func checkRatio(v string) error {
	if f, err := strconv.ParseFloat(v, 64); err != nil || !(f >= 0 && f <= 1) {
		return refuse("Write one such as 0.1", "%q isn't a share from 0 to 1", clip(v))
	}
	return nil
}

// replicas is how many are wanted; Compose has two keys for it.
func (c *converter) replicas(name string, in types.ServiceConfig) int {
	n, said := 1, false
	if in.Deploy != nil && in.Deploy.Replicas != nil {
		n, said = *in.Deploy.Replicas, true
	}
	if in.Scale != nil {
		if said && n != *in.Scale {
			c.failAt(refuse("Remove scale", "scale says %d replicas, but deploy.replicas says %d", *in.Scale, n), "services", name, "scale")
		}
		n = *in.Scale
	}
	if in.Deploy != nil && in.Deploy.Mode == "global" {
		if n != 1 {
			c.failAt(refuse("Write replicated", "a global service has one replica on a host, but %d are asked for", n), "services", name, "deploy", "mode")
		}
		c.report.note("%s: global is one replica, since there is one host", name)
	}
	return n
}

// updates are the two policies of a service; the second is nil where the first
// holds for both.
func (c *converter) updates(name string, in types.ServiceConfig, box spec.Container, deadline spec.Duration) (spec.UpdatePolicy, *spec.UpdatePolicy) {
	var forward, back *types.UpdateConfig
	if in.Deploy != nil {
		forward, back = in.Deploy.UpdateConfig, in.Deploy.RollbackConfig
	}
	update := updatePolicy(forward)
	update.Deadline = deadline
	update.Order = c.order(name, update.Order, box)
	if back == nil {
		return update, nil
	}
	rollback := updatePolicy(back)
	rollback.Deadline = deadline
	rollback.Order = cmp.Or(rollback.Order, update.Order)
	rollback.OnFailure = cmp.Or(rollback.OnFailure, spec.FailurePause)
	return update, &rollback
}

// updatePolicy reads the values that the walk has checked.
func updatePolicy(in *types.UpdateConfig) spec.UpdatePolicy {
	if in == nil {
		return spec.UpdatePolicy{}
	}
	p := spec.UpdatePolicy{
		Order:   spec.UpdateOrder(in.Order),
		Delay:   spec.Duration(in.Delay),
		Monitor: spec.Duration(in.Monitor),
	}
	if in.Parallelism != nil {
		p.Parallelism = int(*in.Parallelism)
	}
	// compose-go keeps 32 bits: 0.1 would become 0.10000000149.
	p.MaxFailureRatio, _ = strconv.ParseFloat(strconv.FormatFloat(float64(in.MaxFailureRatio), 'g', -1, 32), 64)
	if a := spec.FailureAction(in.FailureAction); a != "rollback" {
		p.OnFailure = a
	}
	return p
}

// order resolves the update order, which is visible in the notes when it is
// the one that Compose users may not expect.
func (c *converter) order(name string, declared spec.UpdateOrder, box spec.Container) spec.UpdateOrder {
	reason := c.alone(box)
	switch {
	case declared == spec.StartFirst && reason != "":
		c.report.warn("%s: update order is start-first, so for a while two generations run side by side, though it %s", name, reason)
	case declared != "":
	case reason != "":
		c.report.note("%s: update order is stop-first because it %s", name, reason)
		return spec.StopFirst
	case box.Network == spec.NetworkService:
		return "" // joinedOrders knows
	default:
		return spec.StartFirst
	}
	return declared
}

// alone says why two generations had better not run at the same time; empty
// if they may.
func (c *converter) alone(box spec.Container) string {
	if box.Network == spec.NetworkHost {
		return "has the host's network"
	}
	for _, m := range box.Mounts {
		if one := (spec.Container{Mounts: []spec.Mount{m}}); one.Writable() {
			return "can write to " + string(m.Type) + " " + cmp.Or(c.volumeName(m), m.Source)
		}
	}
	return ""
}

// joinedOrders resolves the update order of who joins a network: with its owner,
// or stop-first, since two generations in one network can't listen on one port.
func (c *converter) joinedOrders(p spec.Project) {
	for i := range p.Services {
		s := &p.Services[i]
		owner, ok := p.Service(s.Container.Joins)
		if !ok {
			continue
		}
		const alone = "it has the network of %s, which is stop-first"
		switch alike := owner.Update.Order == spec.StartFirst; {
		case s.Update.Order == "" && alike:
			s.Update.Order = spec.StartFirst
		case s.Update.Order == "":
			c.report.note("%s: update order is stop-first because "+alone, s.Name, owner.Name)
			s.Update.Order = spec.StopFirst
		case s.Update.Order == spec.StartFirst && !alike:
			c.report.warn("%s: update order is start-first, so for a while two generations run side by side, though "+alone, s.Name, owner.Name)
		}
		if s.Rollback != nil {
			s.Rollback.Order = cmp.Or(s.Rollback.Order, s.Update.Order)
		}
	}
}

// volumeName is the manifest's name of a mounted volume.
func (c *converter) volumeName(m spec.Mount) string {
	for _, name := range sorted(c.volumes) {
		if m.Type == spec.MountVolume && c.volumes[name].ID == m.Source {
			return name
		}
	}
	return ""
}

// restart is deploy.restart_policy, else restart.
func (c *converter) restart(name string, in types.ServiceConfig) spec.RestartPolicy {
	if in.Deploy == nil || in.Deploy.RestartPolicy == nil {
		if in.Restart == "" {
			c.unsaidRestart = append(c.unsaidRestart, name)
		}
		p, _ := parseRestart(in.Restart) // checked by the walk
		return p
	}
	if in.Restart != "" {
		c.report.note("%s: deploy.restart_policy goes before restart: %s, as in Compose", name, in.Restart)
	}
	policy := in.Deploy.RestartPolicy
	p := spec.RestartPolicy{Mode: conditions[policy.Condition]}
	if policy.MaxAttempts != nil {
		p.Max = int(*policy.MaxAttempts)
	}
	if policy.Delay != nil {
		p.Delay = spec.Duration(*policy.Delay)
	}
	if policy.Window != nil {
		p.Window = spec.Duration(*policy.Window)
	}
	return p
}

// conditions are Swarm's names of the restart modes.
var conditions = map[string]spec.RestartMode{
	"": spec.RestartAlways, "any": spec.RestartAlways, "none": spec.RestartNo,
	"on-failure": spec.RestartOnFailure, "unless-stopped": spec.RestartUnlessStopped,
}

// checkCanary refuses a trial that couldn't take place.
func (c *converter) checkCanary(s spec.Service) {
	switch at := []string{"services", s.Name, "x-dunnage", "canary"}; {
	case s.Canary == nil:
	case s.Container.Network == spec.NetworkService:
		c.failAt(refuse("Move it to service "+s.Container.Joins, "replicas that share a network are on trial with those whose network it is"), at...)
	case s.Update.Order == spec.StopFirst:
		c.failAt(refuse("Remove canary, or set deploy.update_config.order: start-first", "a canary runs beside the old replicas, but the update order is stop-first"), at...)
	case s.Replicas > 0 && s.Canary.Replicas > s.Replicas:
		c.failAt(refuse("Lower it", "the canary has %d replicas, but the service only %d", s.Canary.Replicas, s.Replicas), slices.Concat(at, []string{"replicas"})...)
	}
}

// mostFailed is more than the visits of any rollout.
const mostFailed = 1_000_000

func checkFailed(v string) error {
	if n, err := strconv.Atoi(v); err != nil || n < 0 || n > mostFailed {
		return refuse("Write one, such as 2", "%q isn't a whole number from 0 to %d", clip(v), mostFailed)
	}
	return nil
}
