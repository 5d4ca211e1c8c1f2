package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// commandTimeout bounds every iptables command: a full table takes a third of
// a second, the rest is waiting for others that hold the lock.
const commandTimeout = 30 * time.Second

// lockWait is how many seconds a command waits for the xtables lock.
const lockWait = "10"

// tables are the programs of the backend in use and of the other one, which
// may hold rules of an earlier time. Programs of the other backend may be
// missing.
type tables struct {
	backend Backend
	v4, v6  programs
	other4  programs
	other6  programs
}

// programs act on one family's tables in one backend.
type programs struct {
	iptables, save, restore string
	proto                   iptables.Protocol
	legacy                  bool
	last                    *reading
	generations             *netfilter // shared by both families
	xtables                 *xtables   // of a legacy one
}

func (p programs) found() bool { return p.save != "" && p.restore != "" && p.iptables != "" }

// findTables picks the backend.
func findTables(want Backend) (tables, error) {
	if want == "" || want == Auto {
		var err error
		if want, err = hostBackend(); err != nil {
			return tables{}, err
		}
	}
	if want != NFT && want != Legacy {
		return tables{}, fmt.Errorf("iptables backend %q: %w: use auto, nft or legacy", want, spec.ErrRefused)
	}
	other := NFT
	if want == NFT {
		other = Legacy
	}
	generations := &netfilter{}
	find := func(name string, b Backend) programs {
		p := findPrograms(name, b)
		p.generations = generations
		return p
	}
	t := tables{
		backend: want,
		v4:      find("iptables", want), v6: find("ip6tables", want),
		other4: find("iptables", other), other6: find("ip6tables", other),
	}
	if !t.v4.found() || !t.v6.found() {
		return tables{}, fmt.Errorf("find iptables-%s: %w: install the package iptables", want, spec.ErrUnavailable)
	}
	return t, nil
}

// hostBackend is what the plain command uses: the owner's rules are there.
func hostBackend() (Backend, error) {
	path, err := lookPath("iptables")
	if err != nil {
		return "", fmt.Errorf("find iptables: %w: install the package iptables", spec.ErrUnavailable)
	}
	out, err := run(context.Background(), "", path, "-V")
	if err != nil {
		return "", err
	}
	if strings.Contains(out, "nf_tables") {
		return NFT, nil
	}
	return Legacy, nil
}

// findPrograms looks for "iptables-nft-save" and its kin.
func findPrograms(name string, b Backend) programs {
	p := programs{proto: iptables.ProtocolIPv4, legacy: b == Legacy, last: &reading{}, xtables: &xtables{}}
	if name == "ip6tables" {
		p.proto = iptables.ProtocolIPv6
	}
	base := name + "-" + string(b)
	p.iptables, _ = lookPath(base)
	p.save, _ = lookPath(base + "-save")
	p.restore, _ = lookPath(base + "-restore")
	return p
}

// lookPath also looks where administrators' programs are: an agent that was
// started by a user's shell may not have those directories in its PATH.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// run returns what the command prints. Its error holds what it complained of.
func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	return "", commandError(ctx, name, err, stderr.String())
}

// commandError says in one line what a failed command complained of.
func commandError(ctx context.Context, name string, err error, complaint string) error {
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if complaint == "" {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.Join(strings.Fields(complaint), " "))
}

// read returns everything that iptables-save prints, with its dormant tables marked.
func (p programs) read(ctx context.Context, args ...string) (string, error) {
	text, err := run(ctx, "", p.save, args...)
	if err != nil {
		return "", fmt.Errorf("read rules: %w", err)
	}
	off, err := p.dormant()
	if err != nil {
		return "", fmt.Errorf("read rules: %w", err)
	}
	return rules.MarkDormant(text, off), nil
}

// edit opens the tool for single rules in chains of others.
func (p programs) edit() (*iptables.IPTables, error) {
	t, err := iptables.New(iptables.IPFamily(p.proto), iptables.Timeout(10), iptables.Path(p.iptables))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.iptables, err)
	}
	return t, nil
}
