package rules

import "testing"

// TestNameCollision: two things with one name are an error, the same thing
// asked for twice isn't.
func TestNameCollision(t *testing.T) {
	n := &names{}
	n.hashed(kindService, "web", "app")
	n.hashed(kindService, "web", "app")
	if n.err != nil {
		t.Errorf("the same service twice: %v", n.err)
	}
	n.hashed(kindService, "we", "bapp")
	if n.err != nil || len(n.taken) != 2 {
		t.Errorf("two services got %d names (%v)", len(n.taken), n.err)
	}
	n.claim("DUNNAGE-S-1", "one")
	n.claim("DUNNAGE-S-1", "two")
	if n.err == nil {
		t.Error("two keys share a name without an error")
	}
}

func TestComment(t *testing.T) {
	for in, want := range map[string]string{
		"app": "app", "web/app": `"web/app"`, "a\"b\\c\nd": `"a?b?c?d"`, "ä": `"?"`,
	} {
		if got := comment(in); got != "-m comment --comment "+want {
			t.Errorf("comment(%q) = %s, want %s", in, got, want)
		}
	}
}
