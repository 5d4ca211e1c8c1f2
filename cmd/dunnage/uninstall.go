package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dunnage/engine"
	"dunnage/netns"
	"dunnage/store"
)

// containerdEnd is how long the private containerd may take to end.
const containerdEnd = 30 * time.Second

// uninstall takes back what the agent changed on the host, and says what it
// did. Replicas go with `dunnage down`, while the agent runs.
func uninstall(ctx context.Context, o agentOptions) error {
	st, err := store.Open(filepath.Join(o.stateDir, "dunnage.db")) // refuses while an agent runs
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // nothing was written
	network, err := netns.New(netns.Config{RunDir: o.runDir, Pool: o.pool, Pool6: o.pool6, Iptables: o.iptables})
	if err != nil {
		return err
	}
	left, _, err := network.Attached(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("still on the host's network: %s, %s first; start the agent and run `dunnage down` for their projects", counted(len(left), "replica"), left[0])
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }
	removal := network.Remove(ctx)
	if removal == nil {
		say("removed the rules, routes and addresses")
	}
	restored, settings := network.RestoreSettings()
	switch {
	case len(restored) > 0:
		say("put back the host's settings: %s", strings.Join(restored, ", "))
	case settings == nil:
		say("there is no note of settings of the host's to put back")
	}
	stopped, err := stopManaged(ctx, o, os.Stdout)
	err = errors.Join(removal, settings, err, removeCgroups("/sys/fs/cgroup", o.namespace, os.Stdout))
	err = errors.Join(err, removeRunFiles(o.runDir, o.socket, stopped), removeRuncRoot(runcRoot, o.namespace))
	say("%s", stays(o))
	return err
}

// runcRoot is where containerd's shims let runc keep its state, a directory a namespace,
// whoever's containerd it is. They never remove that one.
const runcRoot = "/run/containerd/runc"

// removeRuncRoot removes the namespace's directory, where it is empty.
func removeRuncRoot(root, namespace string) error {
	err := syscall.Rmdir(filepath.Join(root, namespace))
	if err != nil && !slices.Contains([]error{syscall.ENOENT, syscall.ENOTEMPTY}, err) {
		return fmt.Errorf("remove %s: %w", filepath.Join(root, namespace), err)
	}
	return nil
}

// stays says what uninstall leaves for somebody to decide about.
func stays(o agentOptions) string {
	text := o.stateDir + " stays: volumes, logs, images, history, sealed secrets"
	path, file := strings.CutPrefix(o.keySource, "file:")
	inside := file && strings.HasPrefix(path, o.stateDir+"/")
	if inside {
		text += " and their key"
	}
	text += "; delete it if nobody wants them any more"
	if file && !inside {
		text += "\n" + path + " stays: the key of the secrets"
	}
	return text
}

// removeRunFiles removes from the run directory what only an agent looks at, and
// directories with nothing in them; with stopped also what the private containerd
// left.
func removeRunFiles(runDir, socket string, stopped bool) error {
	head := filepath.Join(runDir, headFile)
	files := []string{head, head + ".new", socket}
	if stopped {
		for _, name := range []string{"config.toml", "containerd.sock", "containerd.sock.ttrpc"} {
			files = append(files, filepath.Join(runDir, "containerd", name))
		}
	}
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what the agent left: %w", err)
		}
	}
	dirs := []string{"netns", "replicas", "secrets", "started", "fifo"}
	if stopped { // its plugins' directories and the namespaces in them differ from version to version
		below, err := dirsBelow(runDir, "containerd/state")
		if err != nil {
			return err
		}
		dirs = append(dirs, below...)
	}
	for _, dir := range append(dirs, "containerd", "") {
		err := syscall.Rmdir(filepath.Join(runDir, dir))
		if err != nil && !slices.Contains([]error{syscall.ENOENT, syscall.ENOTEMPTY, syscall.EBUSY}, err) {
			return fmt.Errorf("remove %s: %w", filepath.Join(runDir, dir), err)
		}
	}
	return nil
}

// dirsBelow lists the directory and those in it, the deepest first, relative to
// root; none is no error.
func dirsBelow(root, dir string) (all []string, err error) {
	err = filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("look for what the private containerd left: %w", err)
		case !e.IsDir():
			return nil
		}
		rel, err := filepath.Rel(root, path)
		all = append(all, rel)
		return err
	})
	slices.Reverse(all)
	return all, err
}

// stopManaged ends the private containerd if nothing is left in it, and reports
// whether it did.
func stopManaged(ctx context.Context, o agentOptions, out io.Writer) (stopped bool, err error) {
	managed, err := engine.FindManaged(ctx, engine.ManagedConfig{StateDir: o.stateDir, RunDir: o.runDir, Log: o.log})
	if err != nil || managed == nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, containerdEnd)
	defer cancel()
	n, err := managed.Containers(ctx)
	if err != nil {
		return false, err
	}
	pid := managed.Pid()
	if n > 0 {
		_, err := fmt.Fprintf(out, "left the private containerd (process %d) running: it has %d containers; see `ctr -a %s namespaces ls`\n", pid, n, managed.Address())
		return false, err
	}
	if err := managed.Stop(ctx); err != nil {
		return false, err
	}
	_, err = fmt.Fprintf(out, "stopped the private containerd (process %d)\n", pid)
	return true, err
}

// removeCgroups removes the namespace's parent groups, of cgroup v2 and of
// every v1 hierarchy, where they are empty. The kernel refuses the others.
func removeCgroups(root, namespace string, out io.Writer) error {
	dirs := []string{filepath.Join(root, namespace)}
	hierarchies, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for control groups: %w", err)
	}
	for _, h := range hierarchies {
		if h.IsDir() && h.Name() != namespace { // links are other names of the same
			dirs = append(dirs, filepath.Join(root, h.Name(), namespace))
		}
	}
	removed := 0
	for _, dir := range dirs {
		err := syscall.Rmdir(dir)
		switch {
		case err == nil:
			removed++
		case slices.Contains([]error{syscall.EBUSY, syscall.ENOTEMPTY}, err):
			if _, err := fmt.Fprintf(out, "left control group %s: it isn't empty\n", dir); err != nil {
				return err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
	}
	if removed > 0 {
		_, err = fmt.Fprintf(out, "removed %d control groups %s\n", removed, namespace)
		return err
	}
	return nil
}
