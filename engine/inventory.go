package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

const (
	// relist bounds how long a change that no event told of goes unseen.
	relist = 5 * time.Second
	// settled is when containerd is asked a second time about a container that
	// has changed: it tells of some ends before it has noted them itself.
	settled = time.Second
)

// inventory is what containerd said last of our containers. To list them, it
// asks each one's shim: fifty take 20 ms of several processes' CPU, and the
// agent looks every second. So only what has changed since is asked for, as
// long as events tell of changes, and everything once in a while.
type inventory struct {
	asking sync.Mutex // one look at a time

	mu       sync.Mutex
	followed int       // open subscriptions to events
	listed   time.Time // when everything was asked for last
	doubted  time.Time // what was known before may be wrong
	entries  map[string]*stocked
}

// stocked is one container of the inventory.
type stocked struct {
	container *containers.Container // nil = there is none
	task      *task.Process         // nil = there is none; what was said last while silent

	changed, asked time.Time
	silent         time.Time // since when its shim doesn't answer; zero = it does
}

func (s *stocked) stale(now time.Time) bool {
	again := s.changed.Add(settled)
	return s.asked.Before(s.changed) || s.asked.Before(again) && !now.Before(again)
}

// touch notes that the container has changed, or may have. Without an ID, any may.
func (v *inventory) touch(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if id == "" {
		v.doubted = time.Now()
		return
	}
	if v.entries == nil {
		v.entries = map[string]*stocked{}
	}
	if v.entries[id] == nil {
		v.entries[id] = &stocked{}
	}
	v.entries[id].changed = time.Now()
}

// follow counts the subscriptions up or down. What happened between two is
// not known.
func (v *inventory) follow(by int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.followed += by
	v.doubted = time.Now()
}

// due lists the containers to ask for; all = every one there is.
func (v *inventory) due(now time.Time) (ids []string, all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, s := range v.entries {
		if s.stale(now) {
			ids = append(ids, id)
		}
	}
	// From half of them on, one list is less work than many questions.
	all = v.followed == 0 || !v.listed.After(v.doubted) || now.Sub(v.listed) > relist || 2*len(ids) > len(v.entries)
	return ids, all
}

// note takes an answer to a question that was asked at the given time.
func (v *inventory) note(id string, c *containers.Container, t *task.Process, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.entries[id]
	if s == nil {
		s = &stocked{}
		v.entries[id] = s
	}
	if c != nil {
		c.Spec = nil // large, and nothing of it is looked at
	}
	s.container, s.task, s.asked, s.silent = c, t, asked, time.Time{}
	if c == nil && !s.changed.After(asked) && asked.After(s.changed.Add(settled)) {
		delete(v.entries, id)
	}
}

// replace takes the answer to a question for everything.
// Those whose shim was silent keep the task that was known.
func (v *inventory) replace(found []containers.Container, byID map[string]*task.Process, silent map[string]bool, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.entries
	v.entries = make(map[string]*stocked, len(found))
	for i := range found {
		c := &found[i]
		c.Spec = nil
		s := &stocked{container: c, task: byID[c.ID], asked: asked}
		b := before[c.ID]
		if b != nil {
			s.changed = b.changed
		}
		if silent[c.ID] {
			s.silent = asked
			if b != nil {
				s.task = b.task
				if !b.silent.IsZero() {
					s.silent = b.silent
				}
			}
		}
		v.entries[c.ID] = s
	}
	for id, b := range before { // made meanwhile
		if v.entries[id] == nil && b.changed.After(asked) {
			v.entries[id] = &stocked{changed: b.changed}
		}
	}
	v.listed = asked
}

// stock is the inventory by ID.
func (v *inventory) stock() []stocked {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []stocked
	for _, id := range slices.Sorted(maps.Keys(v.entries)) {
		if s := v.entries[id]; s.container != nil {
			out = append(out, *s)
		}
	}
	return out
}

// takeStock brings the inventory up to date.
func (e *Engine) takeStock(ctx context.Context) error {
	now := time.Now()
	ids, all := e.inventory.due(now)
	if all {
		return e.listAll(ctx, now)
	}
	for _, id := range ids {
		if err := e.askFor(ctx, id, now); err != nil {
			return e.listAll(ctx, now)
		}
	}
	return nil
}

// askFor asks for the task first: a container that is made between the two
// calls is then "created", while the other order could show a started one as
// lost.
func (e *Engine) askFor(ctx context.Context, id string, now time.Time) error {
	t, err := e.taskOf(ctx, id)
	if err != nil {
		return err
	}
	c, err := e.client.ContainerService().Get(ctx, id)
	switch {
	case err != nil && !errdefs.IsNotFound(err):
		return err
	case err != nil, c.Labels[labelProject] == "": // somebody else's
		e.inventory.note(id, nil, nil, now)
		return nil
	}
	e.inventory.note(id, &c, t, now)
	return nil
}

// listAll asks in the order of askFor. containerd asks the shims one after the
// other and waits 2 s for each that hangs: where one does, each is asked for
// apart, side by side.
func (e *Engine) listAll(ctx context.Context, now time.Time) error {
	listing, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	var list *tasks.ListTasksResponse
	err := context.DeadlineExceeded
	if !e.inventory.anySilent() {
		list, err = e.client.TaskService().List(listing, &tasks.ListTasksRequest{})
		err = errgrpc.ToNative(err)
		if err == nil && slices.ContainsFunc(list.Tasks, unanswered) { // it noticed our deadline first
			list, err = nil, context.DeadlineExceeded
		}
	}
	if err != nil && !silence(err) {
		return e.wrap(ctx, err, "list tasks")
	}
	byID := make(map[string]*task.Process, len(list.GetTasks()))
	for _, t := range list.GetTasks() {
		byID[t.ID] = t
	}
	found, failed := e.client.ContainerService().List(ctx, ownedFilter)
	if failed != nil {
		return e.wrap(ctx, failed, "list containers")
	}
	if err != nil {
		silent, err := e.askEach(ctx, found, byID)
		if err != nil {
			return err
		}
		e.inventory.replace(found, byID, silent, now)
		return nil
	}
	e.inventory.replace(found, byID, nil, now)
	return nil
}
