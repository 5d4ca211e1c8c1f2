package orchestrator

import (
	"reflect"
	"testing"
	"time"

	"dunnage/spec"
)

func TestResolvedProbes(t *testing.T) {
	const second = spec.Duration(time.Second)
	var (
		ask      = spec.Probe{Kind: spec.ProbeImage}
		patient  = spec.Probe{Kind: spec.ProbeImage, Interval: second, StartPeriod: 9 * second, Retries: 7}
		tcp      = spec.Probe{Kind: spec.ProbeTCP, Port: 80, Interval: 5 * second}
		fallback = spec.Probe{Kind: spec.ProbeTCP, Port: 80, Interval: 5 * second, Fallback: true}
		accept   = spec.Probe{Kind: spec.ProbeAccept, Command: []string{"/ok"}}
		image    = spec.Probe{Kind: spec.ProbeExec, Command: []string{"/check"}, Interval: 30 * second, Timeout: 30 * second, Retries: 3}
		own      = spec.Probe{Kind: spec.ProbeExec, Command: []string{"/check"}, Interval: 30 * second, Timeout: 30 * second, Retries: 3, FromImage: true}
		mixed    = spec.Probe{Kind: spec.ProbeExec, Command: []string{"/check"}, Interval: second, Timeout: 30 * second, StartPeriod: 9 * second, Retries: 7, FromImage: true}
	)
	for name, c := range map[string]struct {
		probes []spec.Probe
		image  *spec.Probe
		want   []spec.Probe
	}{
		"the image's instead of the fallback": {[]spec.Probe{ask, fallback, accept}, &image, []spec.Probe{own, accept}},
		"the image has none":                  {[]spec.Probe{ask, fallback, accept}, nil, []spec.Probe{tcp, accept}},
		"the manifest's times":                {[]spec.Probe{patient}, &image, []spec.Probe{mixed}},
		"beside one that is declared":         {[]spec.Probe{ask, tcp}, &image, []spec.Probe{own, tcp}},
		"nobody asks":                         {[]spec.Probe{fallback}, nil, []spec.Probe{tcp}},
		"never empty":                         {[]spec.Probe{ask}, nil, []spec.Probe{{Kind: spec.ProbeRunning}}},
	} {
		if got := resolved(c.probes, c.image); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What stands in the release is what the generation is made of: an image's
// HEALTHCHECK that changes is another generation, and a release from before
// there was a fallback keeps its own.
func TestReleaseHoldsTheProbesOfTheImage(t *testing.T) {
	s := newScenario(1, "")
	t.Cleanup(s.stop)
	check := spec.Probe{Kind: spec.ProbeExec, Command: []string{"/check"}, Retries: 3}
	tcp := spec.Probe{Kind: spec.ProbeTCP, Port: 80}
	fallback := tcp
	fallback.Fallback = true
	images := map[string]spec.PinnedImage{"with": {Digest: "d1"}, "without": {Digest: "d2"}, "unknown": {}}
	s.w.Healthchecks = map[string]spec.Probe{"d1": check}
	p := spec.Project{Name: "p"}
	for _, name := range []string{"unknown", "with", "without"} {
		p.Services = append(p.Services, spec.Service{Name: name, Container: spec.Container{Probes: []spec.Probe{{Kind: spec.ProbeImage}, fallback}}})
	}
	c, err := s.loop.propose(t.Context(), spec.DeployRequest{Project: p}, images, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := check
	own.FromImage = true
	for i, want := range []spec.Probe{tcp, own, tcp} {
		got := c.release.Project.Services[i].Container
		if !reflect.DeepEqual(got.Probes, []spec.Probe{want}) {
			t.Errorf("%s: %+v", c.release.Project.Services[i].Name, got.Probes)
		}
		want.FromImage = false // which makes no other replica
		if spec.Generation(got, "d", "", nil) != spec.Generation(spec.Container{Probes: []spec.Probe{want}}, "d", "", nil) {
			t.Errorf("%s: another generation than with the probe itself", c.release.Project.Services[i].Name)
		}
	}
	if p.Services[0].Container.Probes[0].Kind != spec.ProbeImage {
		t.Error("the request was changed")
	}
}
