package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where programs are attached (enum bpf_attach_type in linux/bpf.h).
const (
	attachCgroupIngress = 0 // egress is 1
	attachTCXIngress    = 46
	attachTCXEgress     = 47
)

// queryEffective asks for those of the groups above as well.
const queryEffective = 1 // BPF_F_QUERY_EFFECTIVE

// mostPrograms is more than the kernel lets stand at one place (BPF_MPROG_MAX,
// BPF_CGROUP_MAX_PROGS).
const mostPrograms = 64

// SocketPrograms names the BPF programs that what comes to a process's sockets, or
// leaves them, has to pass: those of its control group and of the groups above, which
// only version 2 has. They may drop it. A process that is gone has none.
func (n *Network) SocketPrograms(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, nil
	}
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		root += "/unified" // beside those of version 1
	}
	var path string
	for line := range strings.Lines(string(b)) {
		if of, ok := strings.CutPrefix(line, "0::"); ok {
			path = filepath.Join(root, strings.TrimSpace(of))
		}
	}
	group, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer group.Close()
	var all []string
	for i, way := range []string{"ingress", "egress"} {
		ids, err := attachedPrograms(uint32(group.Fd()), attachCgroupIngress+uint32(i), queryEffective)
		if err != nil {
			return nil, fmt.Errorf("list the BPF programs of control group %s: %w", path, err)
		}
		for _, id := range ids {
			all = append(all, "cgroup "+way+": "+programName(id))
		}
	}
	return all, nil
}

// attachedPrograms lists the ids of the BPF programs that are attached to a target: a
// link's index, or a descriptor of a control group. A kernel that doesn't know such
// programs has none.
func attachedPrograms(target, attached, flags uint32) ([]uint32, error) {
	var ids [mostPrograms]uint32
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&ids)
	q := struct { // bpf_attr.query
		target, attached, flags, answered uint32
		ids                               uint64
		count, _                          uint32
		_                                 [4]uint64 // more answers that aren't asked for
	}{target: target, attached: attached, flags: flags, ids: uint64(uintptr(unsafe.Pointer(&ids))), count: mostPrograms}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&q), unsafe.Sizeof(q))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil && !errors.Is(err, unix.ENOSPC): // then there are more
		return nil, err
	}
	return ids[:min(q.count, mostPrograms)], nil
}

// programName is "program 42 (drop_all)", without a name where it has none.
func programName(id uint32) string {
	name := fmt.Sprintf("program %d", id)
	get := struct{ id, next, flags uint32 }{id: id} // bpf_attr
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
	if err != nil {
		return name // it is gone, or isn't to be looked at
	}
	defer unix.Close(fd)
	const nameAt, nameLength = 64, 16 // in bpf_prog_info
	var info [nameAt + nameLength]byte
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&info)
	ask := struct { // bpf_attr.info
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&ask), unsafe.Sizeof(ask)); err != nil {
		return name
	}
	if called, _, _ := bytes.Cut(info[nameAt:], []byte{0}); len(called) > 0 {
		name += fmt.Sprintf(" (%s)", called)
	}
	return name
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}
