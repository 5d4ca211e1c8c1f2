package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/log"
	"google.golang.org/grpc"

	"dunnage/internal/keyed"
	"dunnage/internal/regular"
	"dunnage/spec"
)

// Config says where an Engine works. Two engines on one containerd need
// different namespaces, and two on one machine different directories.
type Config struct {
	Address     string // containerd's socket, a path or unix:///path
	Namespace   string // containerd's namespace and the parent cgroup; default "dunnage"
	StateDir    string // volumes/, anonymous/ and logs/ live here; survives a reboot
	RunDir      string // what ends with a reboot: start records, exec's FIFOs
	LogBinary   string // absolute path of dunnage-log
	InitBinary  string // absolute path of dunnage-init
	Snapshotter string // default "overlayfs"

	DockerConfig string // directory of Docker's config.json; default Docker's own choice
	HostsDir     string // directory of hosts.toml files; default /etc/containerd/certs.d

	RPCTimeout time.Duration // of an ordinary call to containerd; default 10 s
	PullIdle   time.Duration // a pull that gets no byte for so long is given up; default 30 s
	Logs       spec.Logging  // of replicas that set nothing; default: 10 MiB, 3 files, compressed

	Log *slog.Logger // what goes on without an error to return; default: nowhere
}

func (c Config) withDefaults() Config {
	c.Namespace = cmp.Or(c.Namespace, "dunnage")
	c.Snapshotter = cmp.Or(c.Snapshotter, "overlayfs")
	c.HostsDir = cmp.Or(c.HostsDir, "/etc/containerd/certs.d")
	c.RPCTimeout = cmp.Or(c.RPCTimeout, 10*time.Second)
	c.PullIdle = cmp.Or(c.PullIdle, 30*time.Second)
	c.Logs.MaxSize = cmp.Or(c.Logs.MaxSize, 10<<20)
	c.Logs.MaxFile = cmp.Or(c.Logs.MaxFile, 3)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Engine runs containers in one namespace of one containerd. Its methods are
// safe for concurrent use.
type Engine struct {
	cfg       Config
	client    *client.Client
	opened    time.Time
	started   *startRecords
	oom       oomWatch
	recent    *recentImages
	cgroup    cgroups
	nudges    nudges
	inventory inventory
	writers   writers
	known     knownImages // by digest
	probers   probers
	calls     *calls
	replicas  keyed.Mutex // by replica ID: create, start and remove take turns
	volumes   keyed.Mutex // by volume: one copy-up at a time
	strangers strangers   // processes of this host that aren't ours
	ballast   ballast
	untried   sync.Map // IDs of containers that this Engine made and hasn't tried to start: they have no shim

	disk  disk
	holds holds

	collecting sync.Mutex // one collection at a time
	asking     sync.Mutex // one lease that asks for containerd's

	ctx    context.Context // ends with Close; owns the watchers of lost processes
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Connect returns an Engine on a containerd that answers now. The error wraps
// spec.ErrUnavailable when it doesn't. Close releases what it holds.
func Connect(ctx context.Context, cfg Config) (*Engine, error) {
	e, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if err := e.probe(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Open is Connect on a containerd that may answer later: an agent that starts
// while it hangs has to say so, and to look after the rules.
func Open(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	started, err := newStartRecords(filepath.Join(cfg.RunDir, "started"))
	if err != nil {
		return nil, err
	}
	recent := openRecent(cfg.StateDir, started.boot)
	// The client library logs every step of a pull through a logger of its own;
	// what goes wrong is in the errors.
	if err := log.SetLevel(log.ErrorLevel.String()); err != nil {
		return nil, fmt.Errorf("quieten containerd's client: %w", err)
	}
	calls := newCalls()
	c, err := newClient(cfg, calls)
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", cfg.Address, err)
	}
	e := &Engine{cfg: cfg, opened: time.Now(), client: c, calls: calls, started: started, recent: recent, cgroup: findCgroups(cfg.Namespace)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.ballast.dir = filepath.Join(cfg.StateDir, "ballast")
	e.keepBallast()
	home, err := os.Stat(cfg.StateDir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the state directory: %w", err), e.Close())
	}
	e.wg.Go(func() { e.keepLogs(home) })
	return e, nil
}

// Close ends the connection, and the probers that need it. Containers are not
// touched.
func (e *Engine) Close() error {
	e.cancel()
	e.endProbers()
	e.wg.Wait()
	if err := e.client.Close(); err != nil {
		return fmt.Errorf("close connection to containerd: %w", err)
	}
	return nil
}

// Ping reports whether containerd answers now: both its own service and the
// one that talks to the shims, because either can hang alone.
func (e *Engine) Ping(ctx context.Context) error { return e.probe(ctx) }

// answerPatience is how long containerd may take for a word where somebody waits
// for an answer within a second.
const answerPatience = 700 * time.Millisecond

// Answers is a quick Ping of containerd alone: nil, or within a second why it is
// silent.
func (e *Engine) Answers(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	_, err := e.client.Version(soon)
	return e.wrap(ctx, native(err), "ask containerd for its version")
}

func (e *Engine) probe(ctx context.Context) error {
	if _, err := e.client.Version(ctx); err != nil {
		return e.wrap(ctx, err, "ask containerd for its version")
	}
	return e.askTasks(ctx) // to list them would wait for a shim that hangs
}

func (c Config) prepare() error {
	for name, path := range map[string]string{"Address": c.Address, "StateDir": c.StateDir, "RunDir": c.RunDir, "LogBinary": c.LogBinary, "InitBinary": c.InitBinary} {
		if path == "" {
			return fmt.Errorf("engine: Config.%s is empty", name)
		}
	}
	for name, path := range map[string]string{"log writer": c.LogBinary, "containers' helper": c.InitBinary} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the %s: %w; it belongs beside the agent's program (make build puts all into bin/)", name, err)
		}
	}
	fifos := filepath.Join(c.RunDir, "fifo")
	releasePipes(fifos)
	if err := os.RemoveAll(fifos); err != nil { // left by an agent that was killed in an exec
		return fmt.Errorf("clear old exec pipes: %w", err)
	}
	for _, dir := range []string{filepath.Join(c.RunDir, "started"), fifos, c.volumesDir(), c.anonymousDir(), c.logsDir()} {
		if err := regular.MkdirThrough(dir, 0o711); err != nil {
			return fmt.Errorf("make the engine's directory: %w", err)
		}
	}
	return c.clearTrees()
}

func (c Config) volumesDir() string   { return filepath.Join(c.StateDir, "volumes") }
func (c Config) anonymousDir() string { return filepath.Join(c.StateDir, "anonymous") }
func (c Config) logsDir() string      { return filepath.Join(c.StateDir, "logs") }

// LogPath is where a replica's current log file is; rotated ones stand beside
// it as <path>.1 (newest) and up.
func (e *Engine) LogPath(k spec.ReplicaKey) string { return e.cfg.logPath(k) }

func (c Config) logPath(k spec.ReplicaKey) string {
	return filepath.Join(c.logsDir(), k.Project, k.Service, k.ID+".log")
}

func newClient(cfg Config, c *calls) (*client.Client, error) {
	unary, stream := deadlines(cfg.RPCTimeout)
	return client.New(cfg.Address,
		client.WithDefaultNamespace(cfg.Namespace),
		client.WithDefaultRuntime(runtimeName),
		client.WithTimeout(time.Second), // also the longest pause between attempts to reconnect
		client.WithExtraDialOpts([]grpc.DialOption{
			grpc.WithChainUnaryInterceptor(points, c.measured, unary),
			grpc.WithChainStreamInterceptor(stream),
		}))
}

// runtimeName is the shim that every containerd since 1.3 has.
const runtimeName = "io.containerd.runc.v2"
