package engine

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func TestImageHealth(t *testing.T) {
	const second = spec.Duration(time.Second)
	probe := func(command ...string) *spec.Probe {
		return &spec.Probe{Kind: spec.ProbeExec, Command: command, Interval: 30 * second, Timeout: 30 * second, Retries: 3}
	}
	timed := probe("/check", "-v")
	timed.Interval, timed.Timeout, timed.StartPeriod, timed.StartInterval, timed.Retries = 5*second, second, 60*second, 2*second, 9
	for config, want := range map[string]*spec.Probe{
		`{}`: nil,
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`:                                      nil,
		`{"config":{"Healthcheck":{"Interval":5000000000}}}`:                                nil,
		`{"config":{"Healthcheck":{"Test":["CMD"]}}}`:                                       nil,
		`{"config":{"Healthcheck":{"Test":["EXEC","x"]}}}`:                                  nil,
		`{"config":{"Healthcheck":{"Test":["CMD","/check"],"Interval":-1}}}`:                probe("/check"),
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","a | b"]}}}`:                         probe("/bin/sh", "-c", "a | b"),
		`{"config":{"Shell":["/bin/bash","-lc"],"Healthcheck":{"Test":["CMD-SHELL","a"]}}}`: probe("/bin/bash", "-lc", "a"),
		`{"config":{"Healthcheck":{"Test":["CMD","/check","-v"],"Interval":5000000000,"Timeout":1000000000,"StartPeriod":60000000000,"StartInterval":2000000000,"Retries":9}}}`: timed,
	} {
		if got, err := imageHealth([]byte(config)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %+v", config, err, got)
		}
	}
}

func TestHealthcheckOfAnImage(t *testing.T) {
	b := newBench(t)
	image := b.load("example.org/healthy:1", testenv.Image(t, testenv.ImageSpec{Config: v1.Config{
		Entrypoint: []string{"/testapp"}, Cmd: []string{"serve"},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/testapp", "exit", "0"}, Interval: time.Second},
	}}))
	p, err := b.Healthcheck(b.ctx, image.Digest)
	if err != nil || p == nil || strings.Join(p.Command, " ") != "/testapp exit 0" || p.Interval.Std() != time.Second {
		t.Errorf("%+v %v", p, err)
	}
	if p, err := b.Healthcheck(b.ctx, b.app().Digest); p != nil || err != nil {
		t.Errorf("an image without one: %+v %v", p, err)
	}
	if _, err := b.Healthcheck(b.ctx, "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, spec.ErrNotFound) {
		t.Errorf("no image: %v", err)
	}
}
