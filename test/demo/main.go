// Command dunnage-demo shows a redeploy under load: `make demo`, `make demo-stop`.
//
// It makes two network namespaces, a host and its client; DEMO_NET=host leaves
// them out and uses the machine itself. Everything else is under DEMO_DIR.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dunnage/netns"
	"dunnage/test/lab"
	"dunnage/test/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d, err := newDemo()
	if err == nil {
		err = d.do(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	lab   *lab.Lab
	agent lab.Agent
	root  string // the checkout
}

func newDemo() (demo, error) {
	root, err := os.Getwd()
	if err != nil {
		return demo{}, fmt.Errorf("find the checkout: %w", err)
	}
	dir := os.Getenv("DEMO_DIR")
	if dir == "" {
		dir = "/var/tmp/dunnage-demo"
	}
	l := lab.New("dunnage-demo", dir, 1)
	if os.Getenv("DEMO_NET") == "host" {
		l = lab.OnMachine("dunnage-demo", dir)
	}
	return demo{lab: l, agent: lab.Agent{Lab: l, Program: filepath.Join(root, "bin/dunnage")}, root: root}, nil
}

func (d demo) do(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "up":
		return d.up(ctx)
	case len(args) == 1 && args[0] == "down":
		return d.down(ctx)
	}
	return fmt.Errorf("say up or down")
}

// down asks the agent to take its project down, so that its rules go where
// they stand on the machine itself, and then removes what is left.
func (d demo) down(ctx context.Context) error {
	if d.lab.Pid("agent") != 0 {
		if _, err := d.agent.Run(ctx, nil, "down", "-p", "hello"); err != nil {
			fmt.Fprintln(os.Stderr, "demo: going on without the agent:", err)
		}
	}
	if d.lab.OnMachine {
		if err := d.clearMachine(ctx); err != nil {
			return err
		}
	}
	if err := d.lab.Down(ctx); err != nil {
		return err
	}
	fmt.Println("demo: its processes, namespaces, rules and files are gone")
	return nil
}

// clearMachine takes the agent's scaffold out of the machine's tables, where
// no namespace takes it along.
func (d demo) clearMachine(ctx context.Context) error {
	if err := d.lab.Stop(ctx, "agent"); err != nil { // it would put it back
		return err
	}
	n, err := netns.New(netns.Config{RunDir: d.agent.RunDir(), Pool: lab.Pool, Pool6: lab.Pool6})
	if err != nil {
		return err
	}
	if err := n.Remove(ctx); err != nil {
		return err
	}
	_, err = n.RestoreSettings()
	return err
}

func (d demo) up(ctx context.Context) error {
	say("cleaning up after an earlier demo")
	if err := d.down(ctx); err != nil {
		return err
	}
	if err := d.lab.Up(ctx); err != nil {
		return err
	}
	say("starting an agent with a private containerd")
	if err := d.agent.Start(ctx); err != nil {
		return err
	}
	say("loading the images of examples/hello")
	if err := d.agent.LoadImages(ctx, filepath.Join(d.root, "build/images"), "hello-v1", "hello-v2"); err != nil {
		return err
	}
	if err := d.deploy(ctx, "v1"); err != nil {
		return err
	}
	rep, err := d.redeployUnderLoad(ctx)
	if err != nil {
		return err
	}
	return d.receipt(ctx, rep)
}

func (d demo) deploy(ctx context.Context, version string) error {
	say("HELLO_VERSION=" + version + " dunnage deploy -f examples/hello/compose.yaml")
	out, err := d.agent.Run(ctx, []string{"HELLO_VERSION=" + version}, "deploy", "-f", filepath.Join(d.root, "examples/hello/compose.yaml"))
	fmt.Print(out)
	return err
}

// Bytes and rate of a download: 3 s each, longer than the swap takes.
const downloadBytes, downloadRate = 300_000, 100_000

// redeployUnderLoad has some traffic before and after, so that both versions answer.
func (d demo) redeployUnderLoad(ctx context.Context) (load.Report, error) {
	say("asking 200 times a second on new connections, on 10 keep-alive ones, and by 4 long downloads")
	t, err := d.lab.StartTraffic(filepath.Join(d.root, "build/bin/dunnage-load"), load.Config{
		Addr:          d.addr(),
		Rate:          200,
		KeepAlive:     10,
		Downloads:     4,
		DownloadPath:  fmt.Sprintf("/download?bytes=%d&rate=%d", downloadBytes, downloadRate),
		DownloadBytes: downloadBytes,
	})
	if err != nil {
		return load.Report{}, err
	}
	pause(ctx, 2*time.Second)
	err = d.deploy(ctx, "v2")
	pause(ctx, 2*time.Second)
	rep, stopErr := t.Stop()
	if err != nil {
		return rep, err
	}
	return rep, stopErr
}

func (d demo) addr() string { return d.lab.Host.String() + ":8080" }

func (d demo) receipt(ctx context.Context, rep load.Report) error {
	ps, err := d.agent.Run(ctx, nil, "ps")
	if err != nil {
		return err
	}
	fmt.Printf(`
%s
  requests asked   %d  (%d on new connections, %d on kept ones, %d downloads)
  failed           %d
  longest gap      %.1f ms between two answers
  versions         v1 %d, v2 %d

It goes on running. Look at it:
  export DUNNAGE_HOST=%s
  bin/dunnage ps
  %s
Stop it:
  %smake demo-stop
`, ps, rep.Asked, rep.Kinds[load.New].Asked, rep.Kinds[load.KeepAlive].Asked, rep.Kinds[load.Download].Asked,
		rep.Failed, rep.LongestGap, rep.Versions["v1"], rep.Versions["v2"], d.agent.URL(), d.curl(), d.stopPrefix())
	if rep.Failed > 0 {
		return fmt.Errorf("%d requests failed: %v", rep.Failed, rep.Reasons)
	}
	if rep.Versions["v1"] == 0 || rep.Versions["v2"] == 0 {
		return fmt.Errorf("the redeploy didn't change the version: %v", rep.Versions)
	}
	return nil
}

// curl is a command that asks the example, for people.
func (d demo) curl() string {
	return strings.Join(d.lab.OnClient("curl", "http://"+d.addr()), " ")
}

func say(what string) { fmt.Println("==>", what) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stopPrefix is what must stand before "make demo-stop" again, so that it finds
// the demo that runs on the machine itself.
func (d demo) stopPrefix() string {
	if d.lab.OnMachine {
		return "DEMO_NET=host "
	}
	return ""
}
