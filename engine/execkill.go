package engine

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killExec kills an exec's process and everything that came of it. The
// children go first, while their parents live to reap them: an orphan's
// zombie would fall to the container's first process, which often reaps
// nothing. Then the rest, until a look finds none.
func (e *Engine) killExec(ctx context.Context, replica, mark string, root int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	family := e.execFamily(replica, mark, root)
	for _, pid := range family {
		if pid != root {
			e.killMember(replica, pid)
		}
	}
	e.awaitReaped(ctx, family, root)
	for ctx.Err() == nil {
		family := e.execFamily(replica, mark, root)
		if len(family) == 0 {
			return
		}
		for _, pid := range family {
			e.killMember(replica, pid)
		}
		for _, pid := range family {
			waitGone(ctx, pid)
		}
	}
}

// killMember is best effort: what still lives is found by the next look.
func (e *Engine) killMember(replica string, pid int) {
	_ = e.signalDirectly(replica, pid, unix.SIGKILL)
}

// reapLimit is what parents get to reap their killed children.
const reapLimit = 100 * time.Millisecond

func (e *Engine) awaitReaped(ctx context.Context, family []int, root int) {
	ctx, cancel := context.WithTimeout(ctx, reapLimit)
	defer cancel()
	for _, pid := range family {
		if pid == root {
			continue
		}
		for ctx.Err() == nil {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// execFamily lists the live processes of a replica that descend from root or
// carry the mark, sorted.
func (e *Engine) execFamily(replica, mark string, root int) []int {
	pids := e.cgroup.pids(replica)
	parents := make(map[int]int, len(pids))
	member := map[int]bool{}
	for _, pid := range pids {
		parents[pid] = parentOf(pid)
		if pid == root || marked(pid, mark) {
			member[pid] = true
		}
	}
	var family []int
	for _, pid := range pids {
		for p := pid; p > 0; p = parents[p] {
			if member[p] {
				family = append(family, pid)
				break
			}
		}
	}
	slices.Sort(family)
	return family
}

// parentOf is 0 for a process that is gone.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}

func marked(pid int, mark string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.Contains(strings.Split(string(env), "\x00"), execMark+"="+mark)
}
