// Package examples checks that every example loads, is understood as its
// comments say, can be planned and has its rules rendered.
package examples

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunnage/manifest"
	"dunnage/netns/rules"
	"dunnage/orchestrator/plan"
	"dunnage/spec"
)

func load(t *testing.T, file string, env ...string) spec.Project {
	t.Helper()
	r, err := manifest.Load(context.Background(), manifest.Options{Files: []string{file}, WorkingDir: t.TempDir(), Environment: env})
	if err != nil {
		t.Fatal(err)
	}
	return r.Project
}

func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../examples/*/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Fatalf("examples: %v", files)
	}
	for i, f := range files {
		if files[i], err = filepath.Abs(f); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// A first deploy begins with the services that wait for nobody.
func TestExamplesArePlanned(t *testing.T) {
	first := map[string][]string{"hello": {"web"}, "stack": {"postgres", "redis"}}
	for _, file := range examples(t) {
		p := load(t, file)
		t.Run(p.Name, func(t *testing.T) {
			rel := spec.Release{Number: 1, Project: p, Images: map[string]spec.PinnedImage{}}
			for _, s := range p.Services {
				rel.Images[s.Name] = spec.PinnedImage{Ref: s.Container.Image, Digest: "sha256:00"}
			}
			made := plan.Make(plan.Desired{Projects: []plan.Project{{
				Record: spec.ProjectRecord{Name: p.Name, Desired: 1}, Release: rel,
			}}}, plan.Observed{Now: time.Unix(1_800_000_000, 0), RulesEqual: true})
			renders(t, p, made.Routing)
			begun := map[string]int{}
			for _, a := range made.Actions {
				if c, ok := a.(plan.Create); ok {
					begun[c.Key.Service]++
				}
			}
			for _, name := range first[p.Name] {
				if begun[name] == 0 {
					t.Errorf("the first wave doesn't create %s: %+v", name, made.Actions)
				}
				delete(begun, name)
			}
			if len(begun) > 0 {
				t.Errorf("the first wave creates %v though they wait for others", begun)
			}
		})
	}
}

// renders checks that every published port of the project gets its rules.
func renders(t *testing.T, p spec.Project, r spec.Routing) {
	t.Helper()
	doc, _, err := rules.Render(r, rules.Config{Pool: netip.MustParsePrefix("10.213.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Services {
		for _, port := range s.Ports {
			if want := fmt.Sprintf("--dport %d ", port.Published); !strings.Contains(doc.String(), want) {
				t.Errorf("no rule has %q:\n%s", want, doc)
			}
		}
	}
}

func TestHello(t *testing.T) {
	file := examples(t)[0]
	web, ok := load(t, file, "HELLO_VERSION=v2").Service("web")
	if !ok || web.Replicas != 3 || web.Update.Order != spec.StartFirst || web.Container.Image != "example.org/hello:v2" {
		t.Errorf("%+v", web)
	}
	if len(web.Ports) != 1 || web.Ports[0].Published != 8080 || web.Ports[0].Target != 80 {
		t.Errorf("ports %+v", web.Ports)
	}
}

// Where two generations would write the same data, the old one must stop first.
func TestStackOrder(t *testing.T) {
	p := load(t, examples(t)[1])
	want := map[string]spec.UpdateOrder{"nginx": spec.StartFirst, "app": spec.StartFirst, "redis": spec.StopFirst, "postgres": spec.StopFirst}
	for name, order := range want {
		if s, ok := p.Service(name); !ok || s.Update.Order != order {
			t.Errorf("%s: order %q, want %q", name, s.Update.Order, order)
		}
	}
	if back, ok := p.Network("back"); !ok || !back.Internal {
		t.Errorf("network back: %+v", back)
	}
}
