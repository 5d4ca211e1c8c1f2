package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/spec"
)

// hostChecks need no agent. Where there is one, it knows in which cgroups to look.
func hostChecks(o agentOptions, cgroups func(context.Context) []spec.Finding) []check {
	return []check{
		{"disk", func(context.Context) []spec.Finding { return examineDisks(o) }},
		{"clock", func(context.Context) []spec.Finding { return examineClock() }},
		{"cgroups", cgroups},
		{"conntrack", func(context.Context) []spec.Finding {
			return examineConntrack(number("/proc/sys/net/netfilter/nf_conntrack_count"), number("/proc/sys/net/netfilter/nf_conntrack_max"))
		}},
		{"rights", func(context.Context) []spec.Finding { return examineRights(o) }},
		{"runc", func(ctx context.Context) []spec.Finding { return examineRunc(ctx) }},
		{"kernel", func(context.Context) []spec.Finding { return examineKernel() }},
		{"others", func(context.Context) []spec.Finding { return examineOthers("/") }},
	}
}

// containerdRoot is where containerd keeps images and layers.
func containerdRoot(o agentOptions) string {
	managed := filepath.Join(o.stateDir, "containerd")
	if info, err := os.Stat(managed); err == nil && info.IsDir() {
		return managed
	}
	return "/var/lib/containerd"
}

// space is what a file system has, in bytes and inodes.
type space struct {
	dir                string
	total, free        uint64 // free for everybody
	inodes, freeInodes uint64
	rootFree           uint64 // with root's reserve
}

// Less than this much is free where deploys begin to fail, and where somebody
// should look. On large disks a small share is still plenty.
const (
	fullShare, nearlyFullShare = 0.03, 0.10
	plenty                     = 10 << 30
)

func (s space) finding() spec.Finding {
	const next = "`dunnage df` shows what takes the room, `dunnage gc` removes what nobody needs, `disk: {budget: 40G}` in the agent's file bounds it"
	share, inodes := float64(s.free)/float64(max(s.total, 1)), 1.0
	if s.inodes > 0 {
		inodes = float64(s.freeInodes) / float64(s.inodes)
	}
	text := fmt.Sprintf("%s has %s of %s free", s.dir, size(int64(s.free)), size(int64(s.total)))
	if s.rootFree > s.free && share < fullShare {
		text += fmt.Sprintf(" (and %s for root alone)", size(int64(s.rootFree-s.free)))
	}
	if inodes < nearlyFullShare {
		text += fmt.Sprintf(", and %d of %d inodes", s.freeInodes, s.inodes)
	}
	switch tight := s.free < plenty; {
	case tight && share < fullShare, inodes < fullShare:
		return wrong(next, "%s: deploys that don't fit are refused; what runs goes on", text)
	case tight && share < nearlyFullShare, inodes < nearlyFullShare:
		return warned(next, "%s", text)
	}
	return spec.Finding{OK: true, Text: text}
}

// examineDisks looks at each file system once.
func examineDisks(o agentOptions) (out []spec.Finding) {
	seen := map[unix.Fsid]bool{}
	dirs := []string{o.stateDir, containerdRoot(o), o.runDir}
	if o.stateDir == "" {
		dirs = dirs[2:]
		out = append(out, notKnown("the disk of its state", o))
	}
	for _, dir := range dirs {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // nothing has been put there yet
		case err != nil:
			out = append(out, wrong("see `dmesg`", "%s: %v", dir, err))
			continue
		case seen[st.Fsid]:
			continue
		}
		seen[st.Fsid] = true
		block := uint64(st.Bsize)
		out = append(out, space{dir: dir, total: st.Blocks * block, free: st.Bavail * block, rootFree: st.Bfree * block, inodes: st.Files, freeInodes: st.Ffree}.finding())
		if st.Flags&unix.ST_RDONLY != 0 {
			out = append(out, wrong("see `dmesg`: the kernel makes a file system read-only when its disk fails", "%s is on a read-only file system", dir))
		}
	}
	if len(out) == 0 {
		out = fine("nothing is stored yet: there is no %s", strings.Join(dirs, ", "))
	}
	return out
}

// notKnown tells of what can't be found without the agent.
func notKnown(what string, o agentOptions) spec.Finding {
	return warned("once the agent answers, `dunnage doctor` looks there", "%s wasn't looked at: only the agent at %s knows where that is", what, o.socket)
}

// examineClock asks the kernel whether somebody keeps its clock right.
func examineClock() []spec.Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return []spec.Finding{warned("`timedatectl` may say whether it is kept right", "the kernel can't be asked about its clock: %v", err)}
	}
	return []spec.Finding{clockFinding(time.Now(), state, t.Status)}
}

// epoch is earlier than any right clock.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func clockFinding(now time.Time, state int, status int32) spec.Finding {
	const next = "`timedatectl set-ntp true`, or install chrony"
	switch {
	case now.Before(epoch):
		return wrong(next, "the clock says %s: registries' certificates aren't valid yet", now.UTC().Format(time.DateOnly))
	case state == unix.TIME_ERROR || status&unix.STA_UNSYNC != 0:
		return warned(next, "nobody keeps the clock right (the kernel calls it unsynchronised): logs and events of several hosts won't fit together")
	}
	return spec.Finding{OK: true, Text: "the clock is synchronised"}
}

// number reads a number from a file, -1 = there is none.
func number(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

func examineConntrack(count, most int) []spec.Finding {
	const next = "`sysctl -w net.netfilter.nf_conntrack_max=...` raises it (0.3 KiB of memory an entry); `conntrack -L` shows who fills it"
	share := 100 * float64(count) / float64(max(most, 1))
	switch {
	case count < 0 || most <= 0:
		return fine("the kernel's connection table isn't in use yet")
	case share >= 95:
		return []spec.Finding{wrong(next, "the connection table is full, %d of %d: the kernel drops new connections", count, most)}
	case share >= 75:
		return []spec.Finding{warned(next, "the connection table is filling up, %d of %d: new connections are dropped when it is full", count, most)}
	}
	return fine("%d of %d connections in the kernel's table", count, most)
}

// examineRights looks at who may read and change what only root should.
func examineRights(o agentOptions) []spec.Finding {
	var out []spec.Finding
	var missing []string
	looked := 0
	look := func(path string, forbidden fs.FileMode, mode, what string) {
		info, err := os.Stat(path)
		looked++
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, path)
		case err != nil:
			out = append(out, wrong("`namei -l "+path+"` shows where the way to it ends", "%v", err))
		case info.Mode().Perm()&forbidden != 0:
			out = append(out, wrong(fmt.Sprintf("`chmod %s %s`", mode, path), "%s has mode %04o: %s", path, info.Mode().Perm(), what))
		default:
			if uid, ok := ownerOf(info); ok && uid != 0 {
				out = append(out, wrong("`chown root "+path+"`", "%s belongs to uid %d, who may change it", path, uid))
			}
		}
	}
	if o.stateDir != "" {
		look(o.stateDir, 0o022, "0700", "others can replace the store in it")
		look(filepath.Join(o.stateDir, "dunnage.db"), 0o077, "0600", "others can read the store, with sealed secrets")
	}
	look(o.runDir, 0o022, "0755", "others can replace the socket in it")
	look(o.socket, 0o007, "0660", "everybody can use the agent")
	if key, ok := strings.CutPrefix(o.keySource, "file:"); ok {
		look(key, 0o077, "0600", "others can read the key of the secrets")
	}
	switch {
	case len(out) > 0:
	case len(missing) == looked:
		out = fine("nothing is stored yet: there is no %s", strings.Join(missing, ", "))
	case o.stateDir == "":
		out = fine("the socket %s is for root and its group", o.socket)
	default:
		out = fine("store, key and socket are for root and the socket's group")
	}
	if o.stateDir == "" {
		out = append(out, notKnown("who may read its store and key", o))
	}
	return out
}

// examineRunc asks for the version of the runc that containerd would find.
func examineRunc(ctx context.Context) []spec.Finding {
	path, err := exec.LookPath("runc")
	if err != nil {
		return []spec.Finding{wrong("install it (Debian: apt install runc)", "there is no runc in the PATH: nothing can be started")}
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout, cmd.WaitDelay = &out, time.Second
	if err := cmd.Run(); err != nil {
		return []spec.Finding{wrong("run it by hand, and reinstall it", "`%s --version` fails: %v", path, err)}
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	text := strings.TrimPrefix(line, "runc version ")
	return judge("runc", text, knownRunc)
}

func examineKernel() []spec.Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []spec.Finding{warned("see whether the agent is confined", "the kernel doesn't say its version: %v", err)}
	}
	release := unix.ByteSliceToString(u.Release[:])
	out := judge("Linux", release, knownKernels)
	if _, err := os.Stat("/run/reboot-required"); err == nil {
		out = append(out, warned("restart the host when it suits: replicas come back by themselves", "updates wait for a restart of the host (/run/reboot-required)"))
	}
	if modules, err := os.ReadDir("/lib/modules"); err == nil && len(modules) > 0 {
		if _, err := os.Stat(filepath.Join("/lib/modules", release)); err != nil {
			out = append(out, warned("restart the host when it suits", "the running kernel's modules are gone from /lib/modules/%s: what isn't loaded yet can't be", release))
		}
	}
	return out
}

// examineOthers says who else changes packet rules here, and what that means.
func examineOthers(root string) []spec.Finding {
	there := func(path string) bool { _, err := os.Stat(filepath.Join(root, path)); return err == nil }
	var out []spec.Finding
	if b, err := os.ReadFile(filepath.Join(root, "etc/ufw/ufw.conf")); err == nil && strings.Contains(string(b), "ENABLED=yes") {
		out = append(out, spec.Finding{OK: true, Text: "ufw is active: published ports don't pass its rules for INPUT, as with Docker; an allow list belongs to the port (x-dunnage.allow) or into the chain DUNNAGE-USER"})
	}
	if there("run/firewalld.pid") || there("run/firewalld/firewalld.pid") {
		out = append(out, spec.Finding{OK: true, Text: "firewalld is active: a reload of it may take rules away, which come back within a second; what its zones drop in FORWARD is told under \"host\""})
	}
	if there("run/docker.pid") || there("var/run/docker.pid") {
		out = append(out, spec.Finding{OK: true, Text: "dockerd runs: it sets the policy of FORWARD to DROP, which replicas' traffic doesn't reach; a port that a container of it publishes can't be published twice"})
	}
	if len(out) == 0 {
		out = fine("neither ufw nor firewalld nor dockerd is active")
	}
	return out
}

// localOptions are those of an agent that doesn't answer at the socket, without
// flags. Of one that listens elsewhere only the run directory is known, where its
// socket is unless it was told otherwise.
func localOptions(socket string) agentOptions {
	if socket != filepath.Join(defaultRunDir, "agent.sock") {
		return agentOptions{runDir: filepath.Dir(socket), socket: socket}
	}
	return agentOptions{
		stateDir: defaultStateDir, runDir: defaultRunDir, socket: socket,
		keySource: "file:" + filepath.Join(defaultStateDir, "secrets.key"),
	}
}
