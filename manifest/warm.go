package manifest

import "dunnage/spec"

func checkHold(v string) error     { return checkUpTo(v, spec.MaxHold) }
func checkKeepWarm(v string) error { return checkUpTo(v, spec.MaxKeepWarm) }

func checkUpTo(v string, limit spec.Duration) error {
	d, err := parseDuration(v)
	if err == nil && d > limit.Std() {
		return refuse("", "%q is too long: at most %s", clip(v), limit)
	}
	return err
}

// encodeHold leaves out the default.
func encodeHold(d spec.Duration) string {
	if d == spec.Duration(defaultHold) {
		return ""
	}
	return d.String()
}

// checkWarm refuses to keep warm what can't be: two generations would run side
// by side for as long.
func (c *converter) checkWarm(p spec.Project) {
	for _, s := range p.Services {
		if why := p.NotWarm(s); why != "" && s.KeepWarm > 0 {
			c.failAt(refuse("Remove keep_warm", "%s", why), "services", s.Name, "x-dunnage", "keep_warm")
		}
	}
}
