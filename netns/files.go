package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"dunnage/internal/fault"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// writeFiles writes the replica's host files and records its addresses.
func (n *Network) writeFiles(e spec.Endpoint) error {
	if err := regular.MkdirAll(n.dir(e.Replica), 0o755); err != nil {
		return fmt.Errorf("make directory for host files: %w", err)
	}
	if err := n.recordAddresses(e); err != nil {
		return err
	}
	hosts, err := n.hostsText(e)
	if err != nil {
		return err
	}
	resolv, err := n.resolvText(e)
	if err != nil {
		return err
	}
	files := n.Files(e.Replica)
	return errors.Join(
		overwrite(files.Hosts, []byte(hosts)),
		overwrite(files.ResolvConf, []byte(resolv)),
		overwrite(files.Hostname, []byte(e.Hostname+"\n")),
	)
}

// WriteNames rewrites the hosts file of a replica that is attached.
func (n *Network) WriteNames(_ context.Context, e spec.Endpoint) error {
	if err := checkName(e.Replica); err != nil {
		return err
	}
	defer n.replicas.Lock(e.Replica)()
	path := n.Files(e.Replica).Hosts
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write names of %s: %w", e.Replica, spec.ErrNotFound)
	}
	hosts, err := n.hostsText(e)
	if err != nil {
		return err
	}
	return overwrite(path, []byte(hosts))
}

// hostsText is /etc/hosts: loopback, the replica's own name, what the manifest
// adds, then the others. A resolver takes the first line that fits, so that the
// manifest's goes before a service of that name, and before the host's file in
// the host's network.
func (n *Network) hostsText(e spec.Endpoint) (string, error) {
	var b strings.Builder
	if e.Network != spec.NetworkHost {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + ownLines(e))
	}
	for _, h := range e.Hosts {
		addr := h.Addr
		if !addr.IsValid() {
			addr = n.gateway(netip.IPv4Unspecified())
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, h.Name)
	}
	for _, o := range e.Names {
		fmt.Fprintf(&b, "%s\t%s\n", o.Addr, strings.Join(o.Names, " "))
	}
	if e.Network != spec.NetworkHost {
		return b.String(), nil
	}
	host, err := readIfThere(n.cfg.Hosts)
	return b.String() + host, err
}

// ownLines lead the replica's own name to its first address that isn't
// internal; without addresses, to itself.
func ownLines(e spec.Endpoint) string {
	own, ok := firstOutside(e)
	switch {
	case e.Hostname == "":
		return ""
	case ok:
	case len(e.Addresses) > 0:
		own = e.Addresses[0]
	default:
		own.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	name := e.Hostname
	if e.DomainName != "" { // the full name first: `hostname -f` is the first of the line
		name = e.Hostname + "." + e.DomainName + " " + e.Hostname
	}
	text := fmt.Sprintf("%s\t%s\n", own.Addr, name)
	if own.Addr6.IsValid() {
		text += fmt.Sprintf("%s\t%s\n", own.Addr6, name)
	}
	return text
}

// readIfThere is the content of a file; a missing one has none.
func readIfThere(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the host's %s: %w", path, err)
	}
	return string(b), nil
}

// overwrite replaces the content of a file that may be bind-mounted into a
// running container: the inode must stay, so a rename is no way. A reader must
// never find the file empty or cut: truncating shows zeros to a reader that
// has looked at the size already, and a file that grows is short for an
// instant. So the file never shrinks: blank lines are appended up to the new
// length first, then one write puts the new content, filled up with blank
// lines, over the old. Equal content isn't written. What is left is the instant
// of the kernel's copy: it doesn't keep readers out of the page, and one that
// reads at the same time may find a part of the new content in the old.
func overwrite(path string, content []byte) error {
	old, err := regular.ReadFile(path)
	if err == nil && string(bytes.TrimRight(old, "\n")) == string(bytes.TrimRight(content, "\n")) {
		return nil
	}
	fault.Point("host file write", fault.Before)
	f, err := regular.Open(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if len(old) > 0 && len(content) > len(old) {
		_, err = f.WriteAt(blankLines(len(content)-len(old)), int64(len(old)))
		fault.Point("host file grow", fault.After)
	}
	if err == nil {
		_, err = f.WriteAt(slices.Concat(content, blankLines(len(old)-len(content))), 0)
	}
	fault.Point("host file write", fault.After)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// blankLines is n times a line's end; nothing for n < 0.
func blankLines(n int) []byte { return bytes.Repeat([]byte("\n"), max(n, 0)) }
