package netns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// loadProgram loads a BPF program, named "all", that answers the same to each packet.
func loadProgram(t *testing.T, kind uint32, verdict int32) (fd int) {
	t.Helper()
	type instruction struct { // bpf_insn, without registers and offset: r0 is the first
		code  uint8
		_     uint8
		_     int16
		value int32
	}
	code, license := [2]instruction{{code: 0xb7, value: verdict}, {code: 0x95}}, [4]byte{'G', 'P', 'L'} // r0 = verdict; exit
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&code)
	pinned.Pin(&license)
	load := struct { // bpf_attr
		kind, count   uint32
		code, license uint64
		_, _          uint32
		_             uint64
		_, _          uint32
		name          [16]byte
		_, _          uint32
	}{kind: kind, count: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code))), license: uint64(uintptr(unsafe.Pointer(&license))), name: [16]byte{'a', 'l', 'l'}}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// attachProgram attaches it to a link's index or a group's descriptor; detach ends that.
func attachProgram(t *testing.T, fd int, target, where uint32) (detach func()) {
	t.Helper()
	attach := struct { // bpf_attr
		target, program, where, flags, replaced, relative uint32
		revision                                          uint64
	}{target: target, program: uint32(fd), where: where}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
			t.Error(err)
		}
	}
}

// Each program at a link of the way is told of, with its name, and that the verdict
// goes no further than what is seen; others aren't.
func TestTracePrograms(t *testing.T) { testenv.Host(t, func() { testTracePrograms(t) }) }

func testTracePrograms(t *testing.T) {
	w := newPublished(t)
	outside := spec.Packet{Protocol: spec.TCP, To: netip.AddrPortFrom(w.HostAddr, 8080)}
	own := spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: netip.MustParseAddrPort("127.0.0.1:8080")}
	replica := w.trace(outside).Reach[0].Link
	find := func(name string) netlink.Link {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	classifier := loadProgram(t, unix.BPF_PROG_TYPE_SCHED_CLS, int32(netlink.TC_ACT_SHOT))
	xdp := func(link string) (undo func()) {
		fd := loadProgram(t, unix.BPF_PROG_TYPE_XDP, 1) // XDP_DROP
		set := func(fd int) {
			if err := netlink.LinkSetXdpFdWithFlags(find(link), fd, nl.XDP_FLAGS_SKB_MODE); err != nil {
				t.Fatal(err)
			}
		}
		set(fd)
		return func() { set(-1) }
	}
	filter := func(link string, parent uint32) (undo func()) {
		qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: find(link).Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
		if err := netlink.QdiscAdd(qdisc); err != nil {
			t.Fatal(err)
		}
		err := netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: qdisc.LinkIndex, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 7},
			Fd: classifier, Name: "drop.o", DirectAction: true})
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := netlink.QdiscDel(qdisc); err != nil {
				t.Error(err)
			}
		}
	}
	tcx := func(link string, where uint32) func() {
		return attachProgram(t, classifier, uint32(find(link).Attrs().Index), where)
	}
	for _, c := range []struct {
		name    string
		attach  func() (undo func())
		outside string // what is told of a client's way
		own     string // and of the host's own
		drops   bool
	}{
		{"at another link", func() func() { return tcx("lan1", attachTCXIngress) }, "", "", false},
		{"XDP", func() func() { return xdp("lan0") }, "XDP at lan0: program N (all)", "", true},
		{"XDP of a replica's link", func() func() { return xdp(replica) }, "the answer: XDP at " + replica + ": program N (all)", "the answer: XDP at " + replica + ": program N (all)", true},
		{"tc, in", func() func() { return filter("lan0", netlink.HANDLE_MIN_INGRESS) }, "tc ingress at lan0: filter bpf, pref 7: program N (all)", "", true},
		{"tc, out", func() func() { return filter("lan0", netlink.HANDLE_MIN_EGRESS) }, "the answer: tc egress at lan0: filter bpf, pref 7: program N (all)", "", true},
		{"tc, out to a replica", func() func() { return filter(replica, netlink.HANDLE_MIN_EGRESS) }, "tc egress at " + replica + ": filter bpf, pref 7: program N (all)", "tc egress at " + replica + ": filter bpf, pref 7: program N (all)", true},
		{"a filter without a program, which takes packets elsewhere", func() func() {
			testenv.Run(t, "tc", "qdisc", "add", "dev", "lan0", "ingress")
			testenv.Run(t, "tc", "filter", "add", "dev", "lan0", "ingress", "protocol", "ip", "pref", "5", "u32", "match", "ip", "dport", "8080", "0xffff", "action", "mirred", "egress", "redirect", "dev", "lan1")
			return func() { testenv.Run(t, "tc", "qdisc", "del", "dev", "lan0", "ingress") }
		}, "tc ingress at lan0: filter u32, pref 5", "", true},
		{"tcx, in", func() func() { return tcx("lan0", attachTCXIngress) }, "tcx ingress at lan0: program N (all)", "", true},
		{"tcx, out", func() func() { return tcx("lan0", attachTCXEgress) }, "the answer: tcx egress at lan0: program N (all)", "", true},
	} {
		undo := c.attach()
		for _, p := range []struct {
			packet spec.Packet
			want   string
		}{{outside, c.outside}, {own, c.own}} {
			got := w.trace(p.packet)
			if p.want != "" {
				p.want += " may drop packets: what it does isn't followed"
			}
			if unseen := withoutNumbers(strings.Join(got.Unseen, "; ")); got.Fate != spec.FateArrives || unseen != p.want {
				t.Errorf("%s, to %s: %s, unseen %q, want %q\n%s", c.name, p.packet.To, got.Fate, unseen, p.want, told(got))
			}
		}
		patience := 300 * time.Millisecond
		if !c.drops { // then only a failure lasts that long
			patience = 10 * time.Second
		}
		conn, err := w.Client.Dial("tcp", outside.To.String(), patience)
		if err == nil {
			conn.Close()
		}
		if (err != nil) != c.drops {
			t.Errorf("%s: %v", c.name, err)
		}
		undo()
	}
	if got := w.trace(outside); len(got.Unseen) != 0 {
		t.Errorf("in the end: %q", got.Unseen)
	}
	testenv.Run(t, "ip", "link", "add", "br9", "type", "bridge")
	testenv.Run(t, "ip", "link", "set", "lan1", "master", "br9")
	undo := tcx("lan1", attachTCXIngress)
	programs, err := readLinkPrograms()
	if err != nil {
		t.Fatal(err)
	}
	if found := programs.at("br9", false); len(found) != 1 || found[0].Where != "tcx ingress at lan1" {
		t.Errorf("at a bridge's port: %+v", found)
	}
	if found := programs.at("", false); len(found) != 1 || found[0].Where != "tcx ingress at lan1" {
		t.Errorf("where the link isn't known: %+v", found)
	}
	undo()
}

// withoutNumbers has N for each program's number.
func withoutNumbers(text string) string {
	words := strings.Split(text, " ")
	for i := range words {
		if _, err := strconv.Atoi(strings.TrimSuffix(words[i], ":")); err == nil && i > 0 && words[i-1] == "program" {
			words[i] = "N"
		}
	}
	return strings.Join(words, " ")
}

// What stands at a process's sockets is told of, with that of the groups above.
func TestSocketPrograms(t *testing.T) {
	testenv.Root(t)
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		root += "/unified"
	}
	above := filepath.Join(root, fmt.Sprintf("dunnage-test-%d", os.Getpid()))
	group := filepath.Join(above, "replica")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		for _, dir := range []string{group, above} {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(sleep.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &Network{}
	if got, err := n.SocketPrograms(sleep.Process.Pid); err != nil || len(got) != 0 {
		t.Errorf("without any: %q, %v", got, err)
	}
	for i, dir := range []string{above, group} {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer attachProgram(t, loadProgram(t, unix.BPF_PROG_TYPE_CGROUP_SKB, 0), uint32(f.Fd()), attachCgroupIngress+uint32(i))()
	}
	got, err := n.SocketPrograms(sleep.Process.Pid)
	if text := withoutNumbers(strings.Join(got, "; ")); err != nil || text != "cgroup ingress: program N (all); cgroup egress: program N (all)" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := n.SocketPrograms(1 << 30); err != nil || len(got) != 0 {
		t.Errorf("of a process that is gone: %q, %v", got, err)
	}
}
