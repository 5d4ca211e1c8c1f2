package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
)

// TestInventoryAsksForWhatChanged: what was touched is asked for at the next
// look and once more when it has settled, the rest only with everything.
func TestInventoryAsksForWhatChanged(t *testing.T) {
	v := stockOf("a", "b", "c", "d")
	now := time.Now()
	if ids, all := v.due(now); len(ids) > 0 || all {
		t.Errorf("nothing has changed, and %v is asked for (all: %v)", ids, all)
	}
	v.touch("b")
	now = time.Now()
	if ids, all := v.due(now); !slices.Equal(ids, []string{"b"}) || all {
		t.Errorf("b has changed, and %v is asked for (all: %v)", ids, all)
	}
	v.note("b", &containers.Container{ID: "b"}, &task.Process{ID: "b"}, now)
	if ids, _ := v.due(now.Add(settled / 2)); len(ids) > 0 {
		t.Errorf("%v is asked for again at once", ids)
	}
	later := now.Add(2 * settled)
	if ids, _ := v.due(later); !slices.Equal(ids, []string{"b"}) {
		t.Errorf("%v is asked for a second time, want b", ids)
	}
	v.note("b", &containers.Container{ID: "b"}, nil, later)
	if ids, _ := v.due(later.Add(settled)); len(ids) > 0 {
		t.Errorf("%v is asked for a third time", ids)
	}
	if _, all := v.due(now.Add(relist + time.Second)); !all {
		t.Error("everything isn't asked for after a while")
	}
}

// TestInventoryDoubts: what happens while a list is on its way isn't lost, and
// without events everything is asked for each time.
func TestInventoryDoubts(t *testing.T) {
	v := stockOf("a", "b", "c")
	asked := time.Now()
	v.touch("a")   // changed
	v.touch("new") // made
	v.replace([]containers.Container{{ID: "a"}, {ID: "b"}, {ID: "c"}}, nil, nil, asked)
	if ids, _ := v.due(time.Now()); !slices.Equal(slices.Sorted(slices.Values(ids)), []string{"a", "new"}) {
		t.Errorf("after a list that was asked for before they changed, %v is asked for, want a and new", ids)
	}
	asked = time.Now()
	v.follow(+1) // a second subscription: events before it are lost
	v.replace(nil, nil, nil, asked)
	if _, all := v.due(time.Now()); !all {
		t.Error("a list from before a subscription counts as known")
	}
	v = stockOf("a")
	v.follow(-1)
	v.replace([]containers.Container{{ID: "a"}}, nil, nil, time.Now())
	if _, all := v.due(time.Now()); !all {
		t.Error("without events, not everything is asked for")
	}
}

// TestInventoryForgets: a container that is gone leaves nothing behind.
func TestInventoryForgets(t *testing.T) {
	v := stockOf("a", "b", "c")
	v.touch("a")
	v.note("a", nil, nil, time.Now())
	if len(v.stock()) != 2 {
		t.Errorf("%d containers are in stock, want b and c", len(v.stock()))
	}
	v.note("a", nil, nil, time.Now().Add(2*settled))
	if len(v.entries) != 2 {
		t.Errorf("%d entries are kept, want 2", len(v.entries))
	}
}

// stockOf is an inventory that was listed just now and follows events.
func stockOf(ids ...string) *inventory {
	v := &inventory{}
	v.follow(+1)
	var found []containers.Container
	for _, id := range ids {
		found = append(found, containers.Container{ID: id})
	}
	v.replace(found, nil, nil, time.Now())
	return v
}
