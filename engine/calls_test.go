package engine

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestCallGroups(t *testing.T) {
	c := newCalls()
	for _, x := range []struct {
		method string
		code   codes.Code
	}{
		{"/containerd.services.tasks.v1.Tasks/Get", codes.OK},
		{"/containerd.services.tasks.v1.Tasks/Get", codes.NotFound},         // an answer
		{"/containerd.services.tasks.v1.Tasks/Get", codes.DeadlineExceeded}, // none
		{"/containerd.services.tasks.v1.Tasks/Create", codes.Unknown},
		{"/containerd.services.tasks.v1.Tasks/Wait", codes.OK}, // as long as the process lives
		{"/containerd.services.leases.v1.Leases/Delete", codes.OK},
		{"/containerd.services.version.v1.Version/Version", codes.Unavailable},
	} {
		c.note(x.method, time.Millisecond, x.code)
	}
	e := &Engine{calls: c}
	var got [][4]any
	for _, n := range e.Calls() {
		got = append(got, [4]any{n.Group, n.Took.Count, n.Failed, n.TimedOut})
	}
	want := [][4]any{
		{"leases.delete", uint64(1), uint64(0), uint64(0)},
		{"tasks", uint64(3), uint64(1), uint64(1)},
		{"tasks.create", uint64(1), uint64(1), uint64(0)},
		{"version", uint64(1), uint64(1), uint64(0)},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}
