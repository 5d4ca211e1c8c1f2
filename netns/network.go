package netns

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"net/netip"

	"dunnage/internal/keyed"
	"dunnage/internal/reread"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// Backend says which iptables to use.
type Backend string

// The backends.
const (
	Auto   Backend = "auto" // what `iptables -V` says: the one that the host's owner uses
	NFT    Backend = "nft"
	Legacy Backend = "legacy"
)

// Config is what a Network needs to know.
type Config struct {
	RunDir   string       // absolute; namespaces in RunDir/netns, host files in RunDir/replicas
	Pool     netip.Prefix // IPv4, /23 or larger
	Pool6    netip.Prefix // IPv6, /63 or larger; zero = replicas have no IPv6
	Iptables Backend      // empty = Auto

	// ResolvConf and StubResolvConf are the host's resolver files; empty =
	// /etc/resolv.conf and /run/systemd/resolve/resolv.conf, which is read
	// instead when the first names nothing but loopback resolvers.
	ResolvConf, StubResolvConf string

	Hosts string // the host's; empty = /etc/hosts
}

// Network implements orchestrator.Network on the real kernel. Its methods are
// safe for concurrent use.
type Network struct {
	cfg      Config
	tables   tables
	replicas keyed.Mutex

	addresses reread.Cache[[]netip.Addr] // of replicas, by file
	settings  held                       // of their links
	changed   atomic.Bool                // settings of the host's, as far as is known
	rendered  rendered
	seen      seen

	visits  visits
	ipv6    ipv6Failure
	innards innards

	conntrack  netfilter
	forgetting forgetting

	host  sync.Mutex // one at a time sets up the host: replicas attach side by side
	mu    sync.Mutex // one Apply or Remove at a time: they read, compare and write
	swept bool       // UDP entries have been compared with the rules since the start
	udp   bool       // at the last sweep, some UDP port was published

	left *spec.Routing // what the note in the run directory says; nil = there is none, or it isn't to be relied on

	written spec.Written
}

// New finds the iptables programs; it changes nothing. Errors: a pool that
// can't be used (wraps spec.ErrRefused), no iptables on the host (wraps
// spec.ErrUnavailable).
func New(cfg Config) (*Network, error) {
	cfg.Pool, cfg.Pool6 = cfg.Pool.Masked(), cfg.Pool6.Masked()
	if !filepath.IsAbs(cfg.RunDir) {
		return nil, fmt.Errorf("run directory %q: %w: it must be an absolute path", cfg.RunDir, spec.ErrRefused)
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.StubResolvConf == "" {
		cfg.StubResolvConf = "/run/systemd/resolve/resolv.conf"
	}
	if cfg.Hosts == "" {
		cfg.Hosts = "/etc/hosts"
	}
	n := &Network{cfg: cfg}
	if err := n.rules().Check(); err != nil {
		return nil, err
	}
	var err error
	n.tables, err = findTables(cfg.Iptables)
	return n, err
}

// CheckPools reports a pool that can't be used on any host; the error wraps
// spec.ErrRefused. A zero pool6 is none.
func CheckPools(pool, pool6 netip.Prefix) error {
	return rules.Config{Pool: pool.Masked(), Pool6: pool6.Masked()}.Check()
}

func (n *Network) rules() rules.Config { return rules.Config{Pool: n.cfg.Pool, Pool6: n.cfg.Pool6} }

// pools lists the pools in use, IPv4 first.
func (n *Network) pools() []netip.Prefix {
	if !n.cfg.Pool6.IsValid() {
		return []netip.Prefix{n.cfg.Pool}
	}
	return []netip.Prefix{n.cfg.Pool, n.cfg.Pool6}
}

// Namespace is where the replica's network namespace is bind-mounted. The
// visitor's isn't beside them, where everything counts as a replica's.
func (n *Network) Namespace(replica string) string {
	if replica == visitor {
		return filepath.Join(n.cfg.RunDir, visitor)
	}
	return filepath.Join(n.cfg.RunDir, "netns", replica)
}

// Files says where the replica's host files are.
func (n *Network) Files(replica string) spec.HostFiles {
	dir := n.dir(replica)
	return spec.HostFiles{
		Hosts:      filepath.Join(dir, "hosts"),
		ResolvConf: filepath.Join(dir, "resolv.conf"),
		Hostname:   filepath.Join(dir, "hostname"),
	}
}

func (n *Network) dir(replica string) string {
	return filepath.Join(n.cfg.RunDir, "replicas", replica)
}
