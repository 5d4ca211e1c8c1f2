package leak

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Program is the name of the workload's program in each image: see package keeper.
const Program = "keeper"

// every is how long the processes aren't looked at. Those of interest live for
// tens of milliseconds at least.
const every = 15 * time.Millisecond

// Processes looks at all processes of the machine, again and again, at what they
// were started with.
type Processes struct {
	findings *Findings
	mu       sync.Mutex // a look; nobody who asks is started meanwhile
	askers   map[int]bool
	known    map[int]known
	seen     map[string]bool // names of the programs
	end      context.CancelFunc
	ended    chan struct{}
}

// known is what a process was at the last looks. Its environment is read again
// while it is young, and when it has become another program.
type known struct {
	program, args string
	looks         int
}

// young is how many looks a process is.
const young = 5

// Watch begins to look.
func Watch(ctx context.Context, f *Findings) *Processes {
	ctx, end := context.WithCancel(ctx)
	p := &Processes{findings: f, askers: map[int]bool{}, known: map[int]known{}, seen: map[string]bool{}, end: end, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			p.look()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return p
}

// Stop looks once more and ends.
func (p *Processes) Stop() {
	p.end()
	<-p.ended
	p.look()
}

// Saw reports whether a process with such a program was seen.
func (p *Processes) Saw(program string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[program]
}

// start starts the command of one who asks: it may have values in its environment,
// and what its command line has is counted apart.
func (p *Processes) start(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.askers[cmd.Process.Pid] = true
	p.findings.Text(Given, fmt.Sprintf("%.80q", cmd.Args), []byte(strings.Join(cmd.Args, "\x00"))) // it may end before the next look
	return nil
}

// done forgets an asker before its pid may be another's.
func (p *Processes) done(cmd *exec.Cmd) error {
	err := cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.askers, cmd.Process.Pid)
	return err
}

func (p *Processes) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil { // the pattern is a constant
		panic(err)
	}
	host, _ := os.Readlink("/proc/self/ns/mnt")
	known := map[int]known{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		before, err := os.Readlink(dir + "/exe")
		if err != nil { // a part of the kernel, or ending
			continue
		}
		args := readAll(dir + "/cmdline")
		k := p.known[pid]
		if k.program != before || k.args != string(args) {
			k.program, k.args, k.looks = before, string(args), 0
		}
		k.looks++
		known[pid] = k
		if k.looks <= young {
			p.process(dir, before, args, p.askers[pid], host)
		}
	}
	p.known = known
}

// process looks at one. What has become another program meanwhile, as runc and
// dunnage-init do, is left to the next look.
func (p *Processes) process(dir, before string, args []byte, asks bool, host string) {
	p.seen[filepath.Base(before)] = true
	item := fmt.Sprintf("%s (%.80q)", dir, bytes.ReplaceAll(args, []byte{0}, []byte(" ")))
	if asks {
		p.findings.Text(Given, item, args)
		return
	}
	p.findings.Text(Args, item, args)
	environ := readAll(dir + "/environ")
	found := p.findings.matcher.Find(environ)
	place := Environ
	if len(found) > 0 {
		after, _ := os.Readlink(dir + "/exe")
		ns, _ := os.Readlink(dir + "/ns/mnt")
		if after != before || ns == "" {
			return
		}
		if filepath.Base(after) == Program && ns != host {
			place = Own
		}
	}
	p.findings.add(place, item, int64(len(environ)), found)
}
