//go:build faults

package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// On reports whether this build has fault points.
const On = true

var (
	dir  = os.Getenv("DUNNAGE_FAULT")
	lies = strings.Split(os.Getenv("DUNNAGE_SABOTAGE"), ",")
)

func do(name string, effect func() error) error {
	point(name, Before)
	if sabotaged("skip " + name) {
		return nil
	}
	err := effect()
	point(name, After)
	return err
}

func sabotaged(name string) bool { return slices.Contains(lies, name) }

func claim(name, truth string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if dir == "" || err != nil {
		return truth
	}
	return strings.TrimSpace(string(b))
}

// passing counts the points since the order was given; points are passed by
// many goroutines.
var passing struct {
	sync.Mutex
	order string
	count int
}

func point(name, when string) {
	if dir == "" {
		return
	}
	passing.Lock()
	defer passing.Unlock()
	here := name + " " + when
	note("passed", os.O_APPEND, here)
	note("goroutines", 0, fmt.Sprintf("%8d", runtime.NumGoroutine())) // one write over the last: a reader never sees half of it
	b, err := os.ReadFile(filepath.Join(dir, "at"))
	if err != nil {
		return // nothing is asked for
	}
	if order := strings.TrimSpace(string(b)); order != passing.order {
		passing.order, passing.count = order, 0
	}
	if due(passing.order, here) {
		die(here)
	}
}

// due counts the points that the order is about.
func due(order, here string) bool {
	at, times, _ := strings.Cut(order, "#")
	if at != "" && at != here {
		return false
	}
	passing.count++
	n, err := strconv.Atoi(times)
	if err != nil {
		n = 1
	}
	return passing.count == n
}

// die ends the process as a crash would: no deferred call runs, no other
// goroutine gets to finish anything.
func die(here string) {
	note("died", os.O_CREATE|os.O_TRUNC, here)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}

func note(file string, flag int, line string) {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|flag, 0o644)
	if err != nil {
		return // nobody wants to know
	}
	_, _ = f.WriteString(line + "\n")
	_ = f.Close()
}
