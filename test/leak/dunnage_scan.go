package leak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dunnage/test/lab"
)

// tidy removes the operator's files but the manifests.
func (d *Dunnage) tidy() error {
	entries, err := os.ReadDir(d.dir())
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".yaml") {
			err = errors.Join(err, os.Remove(filepath.Join(d.dir(), e.Name())))
		}
	}
	return err
}

// plantAll puts the planted value into every place, so that the scan shows that
// it would see others there.
func (d *Dunnage) plantAll(ctx context.Context) error {
	v := d.plant.Values[0]
	manifest := fmt.Sprintf("name: plant\nservices:\n  a:\n    image: %s\n    command: [spill, /spilled]\n    stop_grace_period: 1s\n    environment: {SPILL: '%s'}\n    labels: {planted: '%s'}\n", imageName, v, v)
	if err := errors.Join(d.write("plant.yaml", manifest), d.write("kept", v)); err != nil {
		return err
	}
	if err := d.must(ctx, "deploy -f plant.yaml", "config -f plant.yaml", "logs -p plant"); err != nil {
		return err
	}
	if err := d.refused(ctx, "command line", "", nil, "secret", "set", "x", v); err != nil {
		return err
	}
	_, err := lab.Output(ctx, d.Agent.Lab.OnHost("iptables", "-A", "INPUT", "-m", "comment", "--comment", v, "-j", "ACCEPT")...)
	return errors.Join(err, os.WriteFile(d.Agent.Lab.Path("state", "planted"), []byte(v), 0o600))
}

// scan looks everywhere while all runs, commands by exec as well.
func (d *Dunnage) scan(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := d.plant.Values[0]
	shown := exec.CommandContext(ctx, "sh", "-c", "echo holding; read x", "sh", v)
	shown.Env = []string{"SHOWN=" + v}
	held := []*exec.Cmd{shown}
	for _, where := range [][2]string{{"files", "many"}, {"files", "mix"}, {"env", "half0"}, {"env", "half1"}} {
		held = append(held, exec.CommandContext(ctx, d.Agent.Program, "-H", d.Agent.URL(), "-p", where[0], "exec", where[1], "/keeper", "hold"))
	}
	for _, cmd := range held {
		end, err := hold(cmd)
		if err != nil {
			return err
		}
		defer end()
	}
	spilled, err := os.CreateTemp("", "dunnage-leak-")
	if err != nil {
		return err
	}
	defer os.Remove(spilled.Name())
	_, err = spilled.WriteString(v)
	if err := errors.Join(err, spilled.Close()); err != nil {
		return err
	}
	time.Sleep(10 * every) // for the watch to look at what is held
	if err := d.memory(); err != nil {
		return err
	}
	d.disk(func(p Place) Place { return p })
	d.Findings.Tree(d.dir(), all(Sources))
	scanTemp(d.Findings, d.begun, d.Agent.Lab.Dir)
	if err := scanRules(ctx, d.Findings, d.Agent.Lab); err != nil {
		return err
	}
	return errors.Join(d.answers(ctx), d.ctr(ctx))
}

// hold starts a command and waits until it says that it holds.
func hold(cmd *exec.Cmd) (end func(), err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := make([]byte, len("holding"))
	if n, err := out.Read(b); string(b[:n]) != "holding" {
		return nil, fmt.Errorf("%v says %q: %w", cmd.Args, b[:n], err)
	}
	return func() { in.Close(); _ = cmd.Wait() }, nil
}

// secretsDir is where the replicas' secrets stand, below the run directory.
func (d *Dunnage) secretsDir() string { return filepath.Join(d.Agent.RunDir(), "secrets") }

// memory checks that what is below the run directory's secrets is in memory only,
// and that the values are there: the scan would see them.
func (d *Dunnage) memory() error {
	seen := NewFindings(d.Findings.canaries)
	entries, err := os.ReadDir(d.secretsDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(d.secretsDir(), e.Name())
		if err := InMemory(path); err != nil {
			return err
		}
		seen.Tree(path, all(Data))
	}
	for _, c := range []string{OurFiles, OurEnv} {
		if n := seen.Count(c, Data); n != Secrets {
			return fmt.Errorf("%s: %d of %d secrets stand in %s", c, n, Secrets, d.secretsDir())
		}
	}
	return seen.Err()
}

// disk looks through all that the agent and its containerd have on the disk.
func (d *Dunnage) disk(in func(Place) Place) {
	l := d.Agent.Lab
	place := func(path string) Place {
		slashed := path + "/"
		switch {
		case path == d.dir() || path == d.secretsDir():
			return ""
		case strings.Contains(slashed, "/io.containerd.snapshotter.v1.overlayfs/snapshots/"), strings.Contains(slashed, "/rootfs/"):
			return in(Layers)
		case strings.Contains(slashed, "/logs/"), strings.HasSuffix(path, ".log"):
			return in(Logs)
		case strings.HasPrefix(path, d.Agent.RunDir()):
			return in(Bundles)
		}
		return in(Data)
	}
	d.Findings.Tree(l.Dir, place)
	// The shim's runtime has its state here, wherever containerd has its own.
	d.Findings.Tree(filepath.Join("/run/containerd/runc", l.Name), all(in(Bundles)))
}

// scanTemp looks through what changed where programs put temporary files, and for
// core files of the labs' daemons, whose directory is this process's.
func scanTemp(f *Findings, since time.Time, skip ...string) {
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		f.Tree(dir, changedSince(Temp, since, skip...))
	}
	cores, err := filepath.Glob("core*")
	if err != nil { // the pattern is a constant
		panic(err)
	}
	for _, c := range cores {
		f.File(Temp, c)
	}
}

// scanRules looks through the rules of the lab's host.
func scanRules(ctx context.Context, f *Findings, l *lab.Lab) error {
	for _, program := range []string{"iptables-save", "ip6tables-save", "iptables-legacy-save"} {
		out, err := lab.Output(ctx, l.OnHost(program)...)
		if err != nil {
			return err
		}
		f.Text(Rules, program, []byte(out))
	}
	return nil
}

// answers makes every GET that the API has.
func (d *Dunnage) answers(ctx context.Context) error {
	for _, get := range Gets {
		for _, path := range asked(get) {
			_, b, err := d.ask(ctx, "GET", path, "")
			if err != nil || len(b) == 0 {
				return fmt.Errorf("GET %s: %d bytes, %w", path, len(b), err)
			}
			d.Findings.Text(Answers, "GET "+path, b)
		}
	}
	return nil
}

// ctr asks containerd what it knows of the containers.
func (d *Dunnage) ctr(ctx context.Context) error {
	run := func(args ...string) (string, error) {
		out, err := lab.Output(ctx, append([]string{"ctr", "-a", filepath.Join(d.Agent.RunDir(), "containerd", "containerd.sock"), "-n", d.Agent.Lab.Name}, args...)...)
		d.Findings.Text(Answers, "ctr "+strings.Join(args, " "), []byte(out))
		return out, err
	}
	for _, list := range []string{"tasks ls", "snapshots ls", "images ls", "content ls", "leases ls"} {
		if _, err := run(strings.Fields(list)...); err != nil {
			return err
		}
	}
	ids, err := run("containers", "ls", "-q")
	if err != nil {
		return err
	}
	for _, id := range strings.Fields(ids) {
		if _, err := run("containers", "info", id); err != nil {
			return err
		}
		if _, err := run("snapshots", "info", id); err != nil {
			return err
		}
	}
	return nil
}

// remove takes everything down and looks at what is left on the disk.
func (d *Dunnage) remove(ctx context.Context) error {
	if err := d.must(ctx, "down -p files", "down -p env", "down -p plant"); err != nil {
		return err
	}
	var names []string
	for i, c := range d.files {
		if i < filesConf {
			names = append(names, c.Name)
		} else {
			names = append(names, "files/"+c.Name)
		}
	}
	for _, c := range d.env {
		names = append(names, "env/"+c.Name)
	}
	if _, err := d.run(ctx, "", nil, append([]string{"secret", "rm"}, names...)...); err != nil {
		return err
	}
	err := lab.Await(ctx, 30*time.Second, func() error {
		entries, err := os.ReadDir(d.secretsDir())
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("there is %s still", entries[0].Name())
		}
		return err
	})
	if err != nil {
		return err
	}
	d.disk(func(Place) Place { return After })
	return nil
}
