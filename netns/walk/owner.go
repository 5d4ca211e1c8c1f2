package walk

import (
	"slices"
	"strings"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// guests tells who has chains of its own in a table.
type guests struct{ docker, ufw, firewalld bool }

func (g *guests) note(chain string) {
	switch chainOwner(chain) {
	case spec.OwnerDocker:
		g.docker = true
	case spec.OwnerUFW:
		g.ufw = true
	case spec.OwnerFirewalld:
		g.firewalld = true
	}
}

// chainOwner tells by its name whose a chain is, "" for a built-in one.
func chainOwner(name string) spec.RuleOwner {
	if slices.Contains(builtins, name) {
		return ""
	}
	switch {
	case name == rules.UserChain:
		return spec.OwnerUser
	case strings.HasPrefix(name, rules.Prefix):
		return spec.OwnerDunnage
	case name == "DOCKER", strings.HasPrefix(name, "DOCKER-"):
		return spec.OwnerDocker
	case strings.HasPrefix(name, "ufw-"), strings.HasPrefix(name, "ufw6-"):
		return spec.OwnerUFW
	case strings.HasPrefix(name, "KUBE-"):
		return spec.OwnerKube
	case firewalldChain(name):
		return spec.OwnerFirewalld
	}
	return spec.OwnerOther
}

var builtins = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// firewalldChain knows the names that firewalld's iptables backend gives.
func firewalldChain(name string) bool {
	for _, hook := range builtins {
		rest, ok := strings.CutPrefix(name, hook+"_")
		if ok && (rest == "direct" || strings.HasPrefix(rest, "ZONES") || strings.HasPrefix(rest, "IN_ZONES") ||
			strings.HasPrefix(rest, "OUT_ZONES") || strings.HasPrefix(rest, "POLICIES")) {
			return true
		}
	}
	for _, zone := range []string{"IN_", "FWDI_", "FWDO_", "FWD_", "PRE_", "POST_", "OUT_"} {
		if strings.HasPrefix(name, zone) {
			return true
		}
	}
	return false
}

// ruleOwner says whose a rule is: its chain's; in a built-in chain, that of the
// chain it leads to, or who is known to put such a rule there.
func (c *chain) ruleOwner(r rule) spec.RuleOwner {
	if o := chainOwner(c.name); o != "" {
		return o
	}
	if r.do.kind == jump || r.do.kind == leap {
		if o := chainOwner(r.do.name); o == "" || !strings.Contains(r.text, `--comment "dunnage: `) {
			return o
		}
		return spec.OwnerDunnage // its jump to the user's chain too
	}
	switch {
	case c.guests.docker && dockerLink(r.text):
		return spec.OwnerDocker
	case c.guests.firewalld && slices.Contains(firewalldRules, r.text):
		return spec.OwnerFirewalld
	case strings.Contains(r.text, `--comment "kubernetes `):
		return spec.OwnerKube
	}
	return spec.OwnerOther
}

// firewalldRules are those that firewalld writes into built-in chains.
var firewalldRules = []string{
	"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	"-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
	"-m conntrack --ctstate INVALID -j DROP",
	"-i lo -j ACCEPT",
	"-o lo -j ACCEPT",
	"-j REJECT --reject-with icmp-host-prohibited",
	"-j REJECT --reject-with icmp6-adm-prohibited",
}

// dockerLink reports whether a rule names one of docker's bridges.
func dockerLink(rule string) bool {
	fields := strings.Fields(rule)
	for i := 1; i < len(fields); i++ {
		if f := fields[i-1]; f != "-i" && f != "-o" {
			continue
		}
		if l := fields[i]; l == "docker0" || l == "docker_gwbridge" || strings.HasPrefix(l, "br-") && len(l) == len("br-")+12 {
			return true
		}
	}
	return false
}

// policyOwner says who is known to set a dropping policy on the chain.
func (c *chain) policyOwner() spec.RuleOwner {
	switch {
	case c.owner != "":
		return c.owner
	case c.guests.ufw:
		return spec.OwnerUFW
	case c.guests.docker && c.name == "FORWARD":
		return spec.OwnerDocker
	}
	return spec.OwnerOther
}

// tableOwner tells by its name whose a table of nf_tables is.
func tableOwner(name string) spec.RuleOwner {
	switch {
	case name == "firewalld":
		return spec.OwnerFirewalld
	case strings.HasPrefix(name, "docker"):
		return spec.OwnerDocker
	case strings.HasPrefix(name, "kube"):
		return spec.OwnerKube
	}
	return spec.OwnerOther
}
