package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"unsafe"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"
)

// xtables asks the kernel for the tables of the legacy backend in their binary
// form. That takes a twentieth of what iptables-legacy-save takes, which asks for
// the same and starts a process. The socket stays open and belongs to the
// network namespace of the first call.
type xtables struct {
	mu     sync.Mutex
	socket int
	open   bool
	names  int // descriptor of the list of tables; 0 = not open
	seed   maphash.Seed
	buf    []byte
}

// Requests and forms of linux/netfilter_ipv4/ip_tables.h and its kin of IPv6.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES

	sizeofTableName = 32
	sizeofInfo      = 84 // struct ipt_getinfo
	offsetSize      = 80 // of its field size
	offsetEntries   = 40 // of the entries in struct ipt_get_entries
)

// entryForm says where things stand in a rule's entry.
type entryForm struct {
	family, level  int
	next           int // offset of next_offset, two bytes
	noisy, matches int // from here to there are a mark of the kernel's and the counters
}

var (
	entry4 = entryForm{family: unix.AF_INET, level: unix.SOL_IP, next: 90, noisy: 92, matches: 112}      // struct ipt_entry
	entry6 = entryForm{family: unix.AF_INET6, level: unix.SOL_IPV6, next: 142, noisy: 144, matches: 168} // struct ip6t_entry
)

// fingerprint is a number that changes with any rule or policy of the family's
// tables, and with nothing else. It is never 0.
func (x *xtables) fingerprint(proto iptables.Protocol) (uint64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	form := entry4
	if proto == iptables.ProtocolIPv6 {
		form = entry6
	}
	if err := x.begin(form); err != nil {
		return 0, err
	}
	names, err := x.tableNames(proto)
	if err != nil {
		return 0, err
	}
	var sum maphash.Hash
	sum.SetSeed(x.seed)
	for _, name := range names {
		_, _ = sum.WriteString(name)
		if err := x.addTable(&sum, form, name); err != nil {
			return 0, fmt.Errorf("read legacy table %s: %w", name, err)
		}
	}
	return sum.Sum64() | 1, nil
}

func (x *xtables) begin(form entryForm) (err error) {
	if x.open {
		return nil
	}
	if x.socket, err = unix.Socket(form.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return fmt.Errorf("open socket to the legacy tables: %w", err)
	}
	x.open, x.seed = true, maphash.MakeSeed()
	return nil
}

// present lists the tables that there are.
func (x *xtables) present(proto iptables.Protocol) ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tableNames(proto)
}

// tableNames lists the tables that there are: to ask for another makes it. The
// list's file stays open, as the socket does. Called with mu held.
func (x *xtables) tableNames(proto iptables.Protocol) ([]string, error) {
	if x.names == 0 {
		path := "/proc/thread-self/net/ip_tables_names"
		if proto == iptables.ProtocolIPv6 {
			path = "/proc/thread-self/net/ip6_tables_names"
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil // a kernel without, so far
		}
		if err != nil {
			return nil, fmt.Errorf("list the legacy tables: %w", err)
		}
		x.names = fd
	}
	var b [1024]byte // five names of at most 32 bytes
	n, err := preadAll(x.names, b[:])
	if err != nil {
		return nil, fmt.Errorf("list the legacy tables: %w", err)
	}
	return strings.Fields(string(b[:n])), nil
}

// addTable adds a table without what changes by itself. Another may change it
// between the questions for its size and for its entries: then it is asked anew.
func (x *xtables) addTable(sum *maphash.Hash, form entryForm, name string) error {
	for range 5 {
		var info [sizeofInfo]byte
		copy(info[:sizeofTableName-1], name)
		if err := x.get(form.level, getInfo, info[:]); err != nil {
			return err
		}
		size := int(binary.NativeEndian.Uint32(info[offsetSize:]))
		x.buf = append(x.buf[:0], make([]byte, offsetEntries+size)...)
		copy(x.buf, info[:sizeofTableName])
		binary.NativeEndian.PutUint32(x.buf[sizeofTableName:], uint32(size))
		err := x.get(form.level, getEntries, x.buf)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err == nil {
			_, _ = sum.Write(info[sizeofTableName:])
			form.add(sum, x.buf[offsetEntries:])
		}
		return err
	}
	return unix.EAGAIN
}

func (x *xtables) get(level, what int, b []byte) error {
	size := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(x.socket), uintptr(level), uintptr(what),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// add writes each entry, without what is noisy, to sum.
func (f entryForm) add(sum *maphash.Hash, entries []byte) {
	for len(entries) >= f.matches {
		size := int(binary.NativeEndian.Uint16(entries[f.next:]))
		if size < f.matches || size > len(entries) {
			break
		}
		_, _ = sum.Write(entries[:f.noisy])
		_, _ = sum.Write(entries[f.matches:size])
		entries = entries[size:]
	}
	_, _ = sum.Write(entries) // none, unless the form is another than we know
}
