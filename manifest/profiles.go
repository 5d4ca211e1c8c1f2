package manifest

import (
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// profiles are the active ones.
func (l *loading) profiles() []string {
	if len(l.opts.Profiles) > 0 {
		return l.opts.Profiles
	}
	var active []string
	for p := range strings.SplitSeq(l.env["COMPOSE_PROFILES"], ",") {
		if p = strings.TrimSpace(p); p != "" {
			active = append(active, p)
		}
	}
	return active
}

// checkProfiles refuses an active profile that no service has: it is misspelt,
// and what it should bring would be missing.
func (c *converter) checkProfiles(enabled int) {
	known := map[string]bool{}
	for _, services := range []types.Services{c.in.Services, c.in.DisabledServices} {
		for _, s := range services {
			for _, p := range s.Profiles {
				known[p] = true
			}
		}
	}
	c.known = slices.Sorted(maps.Keys(known))
	names := strings.Join(c.known, ", ")
	for _, p := range c.profiles() {
		switch {
		case p == "*", known[p]:
		case len(known) == 0:
			c.failAt(refuse("Leave it out", "the profile %q is active, but no service has a profile", clip(p)), "services")
		default:
			c.failAt(refuse("Known: "+names, "the profile %q is active, but no service has it", clip(p)), "services")
		}
	}
	if enabled == 0 && len(c.in.DisabledServices) > 0 {
		c.failAt(refuse("Activate one with --profile: "+names, "every service belongs to a profile, and none is active"), "services")
	}
}
