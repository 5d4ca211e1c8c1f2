package spec

import "time"

const (
	// MaxHold bounds Service.Hold: Linux gives a connection up after 127 s.
	MaxHold = Duration(2 * time.Minute)
	// MaxKeepWarm bounds Service.KeepWarm.
	MaxKeepWarm = Duration(24 * time.Hour)
)

// WarmService says that a generation of a service keeps running after a later
// one has taken its place, so that going back to it is one swap of the rules.
type WarmService struct {
	Service    string    `json:"service"`
	Generation string    `json:"generation"`
	Replicas   int       `json:"replicas"` // numbers 1 to this
	Release    int       `json:"release"`  // the newest one that converged with it
	Until      time.Time `json:"until"`
}

// WarmOf returns what is kept warm of the service, if anything is.
func (r ProjectRecord) WarmOf(service string) (WarmService, bool) {
	for _, w := range r.Warm {
		if w.Service == service {
			return w, true
		}
	}
	return WarmService{}, false
}

// NotWarm says why two generations of the service can't run side by side for
// long; empty if they can.
func (p Project) NotWarm(s Service) string {
	switch {
	case s.Container.Network == NetworkService:
		return "its replicas share the network of service " + s.Container.Joins + " and are replaced with those"
	case s.Container.Network == NetworkHost:
		return "it has the host's network, where two can't listen on one port"
	case s.Container.Writable():
		return "it writes to a volume or to the host's files, and two generations that do would corrupt them"
	case s.Update.Order == StopFirst, s.Rollback != nil && s.Rollback.Order == StopFirst:
		return "its update order is stop-first, so that two generations never run side by side"
	}
	for _, o := range p.Services {
		if o.Container.Joins == s.Name {
			return "service " + o.Name + " shares its network, and is replaced with it"
		}
	}
	return ""
}
