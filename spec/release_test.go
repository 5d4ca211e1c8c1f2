package spec_test

import (
	"testing"

	"dunnage/spec"
)

func TestGenerationOfWhoJoins(t *testing.T) {
	r := spec.Release{Project: good(), Images: map[string]spec.PinnedImage{"db": {Digest: "db1"}, "web": {Digest: "web1"}}}
	web := alone(&r.Project.Services[1], spec.NetworkService)
	web.Container.Joins = "db"
	if own := spec.Generation(r.Project.Services[0].Container, "db1", "", nil); r.Generation("db") != own {
		t.Errorf("db has the generation %s, want that of its container, %s", r.Generation("db"), own)
	}
	before := r.Generation("web")
	if id := r.Joined(*web, 1); id != spec.ReplicaID("shop", "db", r.Generation("db"), 1) {
		t.Errorf("web 1 joins %s", id)
	}
	if r.Joined(*web, 2) != r.Joined(*web, 1) {
		t.Errorf("web 2 joins %s, which isn't there", r.Joined(*web, 2))
	}
	r.Images["db"] = spec.PinnedImage{Digest: "db2"}
	if r.Generation("web") == before {
		t.Error("another image of the service that it joins leaves its generation as it is")
	}
}

// TestGenerationInStep: services that share a network and are both start-first
// are replaced together, whichever of them changes.
func TestGenerationInStep(t *testing.T) {
	r := spec.Release{Project: good(), Images: map[string]spec.PinnedImage{"db": {Digest: "db1"}, "web": {Digest: "web1"}}}
	db, web := &r.Project.Services[0], alone(&r.Project.Services[1], spec.NetworkService)
	web.Container.Joins = "db"
	own := r.Generation("db")
	db.Update.Order, web.Update.Order = spec.StartFirst, spec.StartFirst
	db1, web1 := r.Generation("db"), r.Generation("web")
	if db1 == own {
		t.Error("db has the generation that it has alone")
	}
	r.Images["web"] = spec.PinnedImage{Digest: "web2"}
	db2, web2 := r.Generation("db"), r.Generation("web")
	if db1 == db2 || web1 == web2 {
		t.Error("another image of web leaves a generation as it is")
	}
	r.Images["db"] = spec.PinnedImage{Digest: "db2"}
	if r.Generation("db") == db2 || r.Generation("web") == web2 {
		t.Error("another image of db leaves a generation as it is")
	}
	db3 := r.Generation("db")
	web.Replicas++
	if r.Generation("db") != db3 {
		t.Error("more replicas of web are another generation of db")
	}
}
