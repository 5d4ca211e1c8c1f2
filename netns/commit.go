package netns

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// committed is a comment below a document's last COMMIT. The program repeats
// comments when it comes past them, and stops at a commit that fails.
const committed = "# committed"

// echoLimit is how long a program may take to repeat it. One that doesn't show
// its output before its end has long committed by then.
const echoLimit = time.Second

// commitLimit is how long a program may take to commit: 10,000 rules take
// 0.3 s. Until it is given up, nobody takes a dead replica out of the rules.
const commitLimit = 5 * time.Second

// commit applies a document: one atomic commit for each table in it. -w makes
// legacy wait for the lock; nf_tables needs none.
//
// With nf_tables the program is still there when commit returns, and end lets
// it go. What takes long isn't the commit, 0.2 ms, but the close of its netlink
// socket: the kernel then waits until no CPU uses the old rules any more, 12 ms,
// and lets nobody else commit. So both families commit before either closes.
func (p programs) commit(ctx context.Context, doc string) (end func(), err error) {
	if p.legacy {
		if _, err := run(ctx, doc, p.restore, "--noflush", "-w", lockWait); err != nil {
			return nil, fmt.Errorf("write rules: %w", err)
		}
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	cmd := exec.CommandContext(ctx, p.restore, "--noflush", "--verbose")
	cmd.WaitDelay = time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("write rules: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("write rules: start %s: %w", p.restore, err)
	}
	over := make(chan struct{})
	go feed(stdin, doc, over)
	done := echoed(stdout)
	reap := func() error {
		close(over)
		return cmd.Wait()
	}
	if done {
		return func() {
			go func() {
				defer cancel()
				_ = reap() // it has committed
			}()
		}, nil
	}
	defer cancel()
	if err := reap(); err != nil {
		return nil, fmt.Errorf("write rules: %w", commandError(ctx, p.restore, err, complaint.String()))
	}
	return func() {}, nil
}

// feed writes the document and keeps the program from its end until over.
func feed(to io.WriteCloser, doc string, over <-chan struct{}) {
	defer to.Close() // the program tells what it read
	if _, err := io.WriteString(to, doc+committed+"\n"); err != nil {
		return // it has ended, and says why
	}
	select {
	case <-over:
	case <-time.After(echoLimit):
	}
}

// echoed reads until the program has committed, or has ended without.
func echoed(from io.Reader) bool {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == committed {
			return true
		}
	}
	return false
}
