package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dunnage/api"
	"dunnage/engine"
	"dunnage/internal/fault"
	"dunnage/manifest"
	"dunnage/netns"
	"dunnage/orchestrator"
	"dunnage/orchestrator/health"
	"dunnage/orchestrator/visit"
	"dunnage/secrets"
	"dunnage/spec"
	"dunnage/store"
)

// Defaults of the agent.
const (
	defaultStateDir = "/var/lib/dunnage"
	defaultRunDir   = "/run/dunnage"
	defaultConfig   = "/etc/dunnage/config.yaml"
	// The pools: a /12 gives 256 networks of 4,093 addresses. It is a part of
	// 10.0.0.0/8 that neither Docker's nor Kubernetes' defaults use; the IPv6
	// one is a unique local prefix that spells "dunnage".
	defaultPool  = "10.208.0.0/12"
	defaultPool6 = "fd64:756e:6e61::/48"
	// shutdownTime is how long requests may take to finish when the agent stops.
	shutdownTime = 5 * time.Second
)

// agentOptions are the agent's flags, checked.
type agentOptions struct {
	stateDir, runDir, socket, containerd, namespace string
	pool, pool6                                     netip.Prefix
	iptables                                        netns.Backend
	removeUnknown                                   bool
	allowPrivileged                                 bool
	keySource, formerKeySource                      string        // as package secrets takes them; former: empty = none
	restart                                         []string      // the command that restarts a system's containerd; none = nobody may
	patience                                        time.Duration // with a silent containerd
	host                                            spec.HostConfig
	log                                             *slog.Logger
}

func (p *program) agentCommand() *cli.Command {
	return &cli.Command{
		Name:  "agent",
		Usage: "run the agent: keep the deployed projects running",
		Description: "Runs in the foreground, as a service manager expects. Stopping it stops nothing else:\n" +
			"containers, rules and traffic go on, and the next agent takes them over.\n\n" +
			"With --check it starts nothing: it reads the flags and the host's file, and says what is wrong with them (exit code 2), or ok. It needs no root and disturbs no agent.\n\n" +
			"Example:\n   dunnage agent --containerd managed",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "YAML `FILE` of what the host's owner sets: disk, logs, metrics (default: " + defaultConfig + ", if there is one)"},
			&cli.StringFlag{Name: "state-dir", Value: defaultStateDir, Usage: "what must survive a reboot: store, volumes, logs, images"},
			&cli.StringFlag{Name: "run-dir", Value: defaultRunDir, Usage: "what ends with a reboot: sockets, namespaces"},
			&cli.StringFlag{Name: "socket", Usage: "where the API listens (default: agent.sock in the run directory)"},
			&cli.StringFlag{Name: "containerd", Value: engine.ModeAuto, Usage: "auto (the one used last; at first the system's if it answers, else a private one), managed (a private one), or the path of a socket"},
			&cli.DurationFlag{Name: "containerd-patience", Value: 30 * time.Second, Usage: "how long containerd may leave a small write without an answer before it is restarted"},
			&cli.StringFlag{Name: "containerd-restart", Usage: "`COMMAND` that restarts a containerd that isn't the agent's own, for example \"systemctl restart containerd\"; words are split at spaces (default: none; the agent says so and waits)"},
			&cli.StringFlag{Name: "namespace", Usage: "containerd's namespace and the parent cgroup (default: dunnage, or one made from an unusual state directory)"},
			&cli.StringFlag{Name: "pool", Value: defaultPool, Usage: "IPv4 `CIDR` that networks are cut from; must not be in use around the host"},
			&cli.StringFlag{Name: "pool6", Value: defaultPool6, Usage: "IPv6 `CIDR`, or none"},
			&cli.StringFlag{Name: "iptables", Value: string(netns.Auto), Usage: "auto (what the host's iptables is), nft or legacy"},
			&cli.BoolFlag{Name: "allow-privileged", Usage: "allow services with privileged: true, pid: host or ipc: host, which own the host"},
			&cli.BoolFlag{Name: "remove-unknown", Usage: "remove replicas of projects that the store doesn't know; without it an agent that finds any changes nothing, since it may have got the wrong store"},
			&cli.BoolFlag{Name: "check", Usage: "check the flags and the host's file, start nothing, and end"},
			&cli.BoolFlag{Name: "uninstall", Usage: "remove what an agent with these flags left on the host (rules, routes, settings, an idle private containerd), and end; the state directory stays, with sealed secrets and their key"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "text or json, on standard error"},
		}, keyFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0); err != nil {
				return err
			}
			o, err := agentFlags(c)
			switch {
			case err != nil:
				return &usageError{message: err.Error(), hint: "see `dunnage agent --help`"}
			case c.Bool("check"):
				return p.checkedAgent(c.String("config"))
			}
			p.serves.Store(true)
			if c.Bool("uninstall") {
				return uninstall(c.Context, o)
			}
			return runAgent(c.Context, o)
		},
	}
}

// checkedAgent says which file an agent with these flags would start with.
func (p *program) checkedAgent(config string) error {
	if _, err := os.Stat(cmp.Or(config, defaultConfig)); errors.Is(err, fs.ErrNotExist) {
		return p.print("ok: there is no " + defaultConfig + ", so all is as by default\n")
	}
	return p.print("ok: " + printable(cmp.Or(config, defaultConfig)) + "\n")
}

func agentFlags(c *cli.Context) (agentOptions, error) {
	o := agentOptions{
		stateDir: c.String("state-dir"), runDir: c.String("run-dir"), socket: c.String("socket"),
		containerd: c.String("containerd"), namespace: c.String("namespace"), iptables: netns.Backend(c.String("iptables")),
		removeUnknown:   c.Bool("remove-unknown"),
		allowPrivileged: c.Bool("allow-privileged"),
		restart:         strings.Fields(c.String("containerd-restart")),
		patience:        c.Duration("containerd-patience"),
	}
	var err error
	if o.host, err = hostConfig(c.String("config")); err != nil {
		return o, err
	}
	if o.patience < time.Second {
		return o, fmt.Errorf("--containerd-patience %s: use a second or more", o.patience)
	}
	for _, dir := range []struct {
		flag string
		path *string
	}{{"--state-dir", &o.stateDir}, {"--run-dir", &o.runDir}} {
		abs, err := filepath.Abs(*dir.path)
		if err != nil {
			return o, fmt.Errorf("%s %s: %w", dir.flag, *dir.path, err)
		}
		*dir.path = abs
	}
	if o.socket == "" {
		o.socket = filepath.Join(o.runDir, "agent.sock")
	}
	if o.namespace == "" {
		o.namespace = namespaceFor(o.stateDir)
	}
	if !namespaceName.MatchString(o.namespace) || len(o.namespace) > longestNamespace {
		return o, fmt.Errorf("--namespace %q: use letters, digits, and single dots, dashes or underscores between them, %d at most: containerd takes no other", o.namespace, longestNamespace)
	}
	if o.keySource, o.formerKeySource, err = keySources(c, o.stateDir); err != nil {
		return o, err
	}
	if o.pool, err = netip.ParsePrefix(c.String("pool")); err != nil || !o.pool.Addr().Is4() {
		return o, fmt.Errorf("--pool %q: use an IPv4 prefix such as %s", c.String("pool"), defaultPool)
	}
	if v := c.String("pool6"); v != "none" && v != "" {
		if o.pool6, err = netip.ParsePrefix(v); err != nil || !o.pool6.Addr().Is6() {
			return o, fmt.Errorf("--pool6 %q: use an IPv6 prefix such as %s, or none", v, defaultPool6)
		}
	}
	if err := netns.CheckPools(o.pool, o.pool6); err != nil {
		return o, fmt.Errorf("--%w", err)
	}
	switch c.String("log-format") {
	case "text":
		o.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	case "json":
		o.log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	default:
		return o, fmt.Errorf("--log-format %q: use text or json", c.String("log-format"))
	}
	return o, nil
}

// What containerd takes as a namespace (its package identifiers).
const longestNamespace = 76

var namespaceName = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

// hostConfig reads the named file, or the default one if there is one.
func hostConfig(path string) (spec.HostConfig, error) {
	c, err := manifest.LoadHost(cmp.Or(path, defaultConfig))
	var list manifest.Errors
	switch {
	case path == "" && errors.Is(err, fs.ErrNotExist):
		return spec.HostConfig{}, nil
	case errors.As(err, &list):
		return c, errors.New(problemsText("the host's file", "; the agent doesn't start with it", list))
	}
	return c, err
}

// namespaceFor keeps agents with different state directories apart on one
// containerd and in the cgroup tree.
func namespaceFor(stateDir string) string {
	if stateDir == defaultStateDir {
		return "dunnage"
	}
	return fmt.Sprintf("dunnage-%x", sha256.Sum256([]byte(stateDir)))[:16]
}

// clearAround refuses pools that overlap what the host has around it. With
// projects in them the agent starts all the same, and the network names it: they
// run, and whoever changed the host's network has to see how they are.
func clearAround(network *netns.Network, o agentOptions, was spec.State) error {
	overlaps, err := network.Overlaps()
	if err != nil {
		return err
	}
	if len(overlaps) > 0 && !usesPools(was, o.pool, o.pool6) {
		return &usageError{
			message: strings.Join(overlaps, "; "),
			hint:    "give --pool and --pool6 prefixes that nothing around the host uses, for example --pool 10.213.0.0/16; `ip route` and `ip neigh` list what does",
		}
	}
	for _, text := range overlaps {
		o.log.Warn("a pool is in use around the host", "problem", text)
	}
	return nil
}

// usesPools reports whether a project has a network in one of them.
func usesPools(was spec.State, pool, pool6 netip.Prefix) bool {
	return slices.ContainsFunc(was.Projects, func(p spec.ProjectRecord) bool {
		return slices.ContainsFunc(p.Networks, func(n spec.NetworkAddressing) bool {
			return pool.Overlaps(n.Subnet) || pool6.Overlaps(n.Subnet6)
		})
	})
}

// usesIPv6 reports whether a project has IPv6 addresses: then it gets them back
// when the host has IPv6 again.
func usesIPv6(was spec.State) bool {
	return slices.ContainsFunc(was.Projects, func(p spec.ProjectRecord) bool {
		return slices.ContainsFunc(p.Networks, func(n spec.NetworkAddressing) bool { return n.Subnet6.IsValid() })
	})
}

// ipv6Available reports whether the kernel has IPv6 switched on.
func ipv6Available() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// runAgent is the process tree: every long-lived goroutine of the agent is
// begun here, or by what is begun here.
func runAgent(ctx context.Context, o agentOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("the agent needs root: it makes network namespaces, mounts and netfilter rules; run it with sudo or as a system service")
	}
	if fault.Sabotaged("slow start") {
		time.Sleep(sabotagedStart)
	}
	debug.SetGCPercent(gcPercent)
	if err := secrets.Harden(); err != nil {
		return err
	}
	alone, err := claimNetwork()
	if err != nil {
		return err
	}
	defer alone.Close()
	if err := api.CheckSocket(o.socket); err != nil { // before anything is made or started
		return err
	}
	release, err := claimRunDir(o.runDir)
	if err != nil {
		return err
	}
	defer release()
	st, err := store.Open(o.storePath())
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // every commit is durable by itself
	was, err := st.Load()
	if err != nil {
		return err
	}
	if !ipv6Available() && !usesIPv6(was) {
		o.log.Info("replicas get no IPv6 addresses: the host has none, and no project has used them", "setting", "net.ipv6.conf.all.disable_ipv6")
		o.pool6 = netip.Prefix{}
	}
	network, err := netns.New(netns.Config{RunDir: o.runDir, Pool: o.pool, Pool6: o.pool6, Iptables: o.iptables})
	if err != nil {
		return err
	}
	if err := clearAround(network, o, was); err != nil {
		return err
	}
	eng, managed, err := connectEngine(ctx, o)
	if err != nil {
		return err
	}
	defer eng.Close() //nolint:errcheck // nothing is lost with the connection
	defer settle(eng, o.log)

	history := store.OpenHistory(filepath.Join(o.stateDir, "events"), o.log)
	keep, kept := context.WithCancel(context.WithoutCancel(ctx)) // to the last event
	var keeping sync.WaitGroup
	defer keeping.Wait()
	defer kept()
	keeping.Go(func() { history.Run(keep) })
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	loop, watchers, err := newLoop(ctx, o, st, history, network, eng)
	if err != nil {
		return err
	}
	loop.TellStart()
	var wg sync.WaitGroup
	defer func() { stop(); wg.Wait(); loop.TellStop() }()
	if managed != nil {
		wg.Go(func() { managed.Run(ctx, loop.EngineDied) })
	}
	wg.Go(loop.Run)
	wg.Go(loop.Sample)
	wg.Go(func() { loop.Guard(supervisor{Engine: eng, managed: managed, command: o.restart}) })
	wg.Go(func() { watch(ctx, o, loop) })
	wg.Go(func() {
		select {
		case <-loop.Acting():
		case <-ctx.Done():
			return
		}
		if err := network.PrepareVisits(ctx); err != nil && ctx.Err() == nil {
			o.log.Warn("the next visit tries again", "error", err)
		}
	})
	wg.Go(func() { <-ctx.Done(); watchers.wait() })
	numbers, err := metricsHandler(o, loop, watchers, network, eng)
	if err != nil {
		return err
	}
	shown := serveMetrics(o, numbers)
	if shown != nil {
		wg.Go(func() { shown.Run(ctx) })
	}
	return serve(ctx, o, numbers, backend{
		Loop: loop, engine: eng,
		examiner: examiner{options: o, managed: managed != nil, engine: eng, network: network, loop: loop, numbers: shown},
	})
}

// settle ends what a later power cut would put in doubt.
func settle(eng *engine.Engine, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := eng.Settle(ctx); err != nil {
		log.Warn("images that came lately are verified after the next boot", "error", err)
	}
}

func connectEngine(ctx context.Context, o agentOptions) (*engine.Engine, *engine.Managed, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	helper := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
	for name, does := range map[string]string{"dunnage-log": "writes the containers' logs", "dunnage-init": "runs their health checks"} {
		if _, err := os.Stat(helper(name)); err != nil {
			return nil, nil, fmt.Errorf("find %s, which %s: %w; install it beside %s", name, does, err, self)
		}
	}
	address, managed, err := engine.Dial(ctx, o.containerd, engine.ManagedConfig{StateDir: o.stateDir, RunDir: o.runDir, Log: o.log})
	if err != nil {
		return nil, nil, err
	}
	eng, err := engine.Open(engine.Config{ // it may answer later
		Address: address, Namespace: o.namespace, StateDir: o.stateDir, RunDir: o.runDir,
		LogBinary: helper("dunnage-log"), InitBinary: helper("dunnage-init"), Log: o.log,
		Logs: o.host.Logs,
	})
	return eng, managed, err
}

// watchers ask replicas and ports how they are, until the agent's context ends.
type watchers struct {
	health *health.Monitor
	visits *visit.Visitor
}

func (w watchers) wait() {
	w.health.Wait()
	w.visits.Wait()
}

func newLoop(ctx context.Context, o agentOptions, st *store.Store, history *store.History, network *netns.Network, eng *engine.Engine) (*orchestrator.Loop, watchers, error) {
	var loop *orchestrator.Loop
	w := watchers{
		health: health.NewMonitor(ctx, health.Network{Exec: eng.Check}, func() { loop.Look() }),
		visits: visit.New(ctx, network, func() { loop.Look() }),
	}
	keys := secrets.Config{Source: o.keySource, Former: o.formerKeySource, RunDir: o.runDir}
	vault, err := secrets.NewVault(keys)
	if err != nil {
		return nil, w, err
	}
	deliverer, err := secrets.NewDeliverer(keys)
	if err != nil {
		return nil, w, err
	}
	headed := withHead(st, o.runDir, o.log)
	replaced, err := headed.replaced()
	if err != nil {
		return nil, w, err
	}
	notices := slices.DeleteFunc([]string{st.Doubt(), replaced}, func(n string) bool { return n == "" })
	loop, err = orchestrator.New(ctx, orchestrator.Config{
		Engine: eng, Images: eng, Disk: eng, Volumes: eng, Network: network, Health: w.health, Visits: w.visits, Store: headed,
		Vault: vault, Secrets: deliverer,
		Clock: systemClock{}, Log: o.log, Pool: o.pool, Pool6: o.pool6,
		AllowPrivileged: o.allowPrivileged,
		Patience:        o.patience,
		KeepReleases:    o.host.Disk.KeepReleases,
		Budget:          o.host.Disk.Budget,
		StateDir:        o.stateDir, RunDir: o.runDir, RemoveUnknown: o.removeUnknown, Notices: notices, History: history, Version: version,
	})
	return loop, w, err
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
