package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"dunnage/spec"
)

// writeFiles writes the replica's host files and records its addresses.
func (n *Network) writeFiles(e spec.Endpoint) error {
	if err := os.MkdirAll(n.dir(e.Replica), 0o755); err != nil {
		return fmt.Errorf("make directory for host files: %w", err)
	}
	if err := n.recordAddresses(e); err != nil {
		return err
	}
	resolv, err := n.resolvConf(hasIPv6(e))
	if err != nil {
		return err
	}
	files := n.Files(e.Replica)
	return errors.Join(
		overwrite(files.Hosts, []byte(hostsText(e))),
		overwrite(files.ResolvConf, []byte(resolv)),
		overwrite(files.Hostname, []byte(e.Hostname+"\n")),
	)
}

// WriteNames rewrites the hosts file of a replica that is attached.
func (n *Network) WriteNames(_ context.Context, e spec.Endpoint) error {
	if err := checkName(e.Replica); err != nil {
		return err
	}
	defer n.replicas.lock(e.Replica)()
	path := n.Files(e.Replica).Hosts
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write names of %s: %w", e.Replica, spec.ErrNotFound)
	}
	return overwrite(path, []byte(hostsText(e)))
}

// hostsText is /etc/hosts: loopback, the replica's own name at its first
// address that isn't internal, then the others.
func hostsText(e spec.Endpoint) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	own, ok := firstOutside(e)
	if !ok && len(e.Addresses) > 0 {
		own, ok = e.Addresses[0], true
	}
	if ok && e.Hostname != "" {
		fmt.Fprintf(&b, "%s\t%s\n", own.Addr, e.Hostname)
		if own.Addr6.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", own.Addr6, e.Hostname)
		}
	}
	for _, n := range e.Names {
		fmt.Fprintf(&b, "%s\t%s\n", n.Addr, strings.Join(n.Names, " "))
	}
	return b.String()
}

// overwrite replaces the content of a file that may be bind-mounted into a
// running container: the inode must stay, so a rename is no way. A reader must
// never find the file empty or a line cut in half: one write puts the new
// content over the old, with blank lines up to the old length, and only then
// the rest is cut off. Equal content isn't written.
func overwrite(path string, content []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == string(content) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	padded := content
	if missing := len(old) - len(content); missing > 0 {
		padded = append(append([]byte{}, content...), strings.Repeat("\n", missing)...)
	}
	_, err = f.WriteAt(padded, 0)
	err = errors.Join(err, f.Truncate(int64(len(content))), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
