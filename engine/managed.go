package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dunnage/internal/regular"
	"dunnage/spec"
)

// SystemAddress is where distributions put containerd's socket.
const SystemAddress = "/run/containerd/containerd.sock"

// Modes of Dial beside an address.
const (
	ModeAuto    = "auto"
	ModeManaged = "managed"
)

// Dial finds the containerd that mode asks for: "auto" is the one used last, at
// first the system's if it answers, else a managed one; "managed" a managed
// one; anything else the address of a socket. Managed is nil where containerd is
// somebody else's.
func Dial(ctx context.Context, mode string, cfg ManagedConfig) (address string, managed *Managed, err error) {
	if mode == ModeAuto {
		if mode, err = choose(ctx, cfg.StateDir); err != nil {
			return "", nil, err
		}
	}
	if mode == ModeManaged {
		if managed, err = StartManaged(ctx, cfg); err != nil {
			return "", nil, err
		}
		return managed.Address(), managed, remember(cfg.StateDir, mode)
	}
	address = strings.TrimPrefix(mode, "unix://")
	if !filepath.IsAbs(address) {
		return "", nil, fmt.Errorf("--containerd %q: must be auto, managed, or the absolute path of a socket: %w", mode, spec.ErrRefused)
	}
	if !answers(ctx, address) {
		return "", nil, fmt.Errorf("containerd at %s does not answer; start it, or begin with an empty one of dunnage's own by --containerd managed: %w", address, spec.ErrUnavailable)
	}
	return address, nil, remember(cfg.StateDir, address)
}

// answers reports whether something accepts connections on the socket.
func answers(ctx context.Context, address string) bool {
	_, err := listener(ctx, address)
	return err == nil
}

// listener returns the pid of the process that made the socket.
func listener(ctx context.Context, address string) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// ManagedConfig says where a managed containerd works.
type ManagedConfig struct {
	StateDir string       // its data is in StateDir/containerd
	RunDir   string       // its socket and state are in RunDir/containerd
	Binary   string       // default "containerd" from the PATH
	Log      *slog.Logger // restarts are told here; default slog.Default()
}

// Managed is a private containerd that the agent starts again when it dies.
// It is no child to be taken along: when the agent ends or is killed it runs
// on, with shims and traffic, and the next agent adopts it.
type Managed struct {
	cfg    ManagedConfig
	binary string

	mu     sync.Mutex
	pid    int
	ended  <-chan *os.ProcessState // gives how it ended, once; nil = an earlier agent's child
	ending int                     // the process that Restart ends
}

// StartManaged adopts the containerd that answers on the socket, or starts one
// and waits until it answers. One that lives without its socket it ends before: that
// has the database. Run supervises it.
func StartManaged(ctx context.Context, cfg ManagedConfig) (*Managed, error) {
	if cfg.Binary == "" {
		cfg.Binary = "containerd"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	binary, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("find containerd: %w; install it (Debian: apt install containerd runc), or name a running one with --containerd ADDRESS", err)
	}
	m := &Managed{cfg: cfg, binary: binary}
	if pid, err := listener(ctx, m.Address()); err == nil {
		m.pid = pid
		return m, nil
	}
	if err := m.endUnreachable(ctx); err != nil {
		return nil, err
	}
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Managed) dir() string { return filepath.Join(m.cfg.RunDir, "containerd") }

// Address is the path of the socket.
func (m *Managed) Address() string { return filepath.Join(m.dir(), "containerd.sock") }

// LogFile holds what containerd says.
func (m *Managed) LogFile() string {
	return filepath.Join(m.root(), "containerd.log")
}

// Pid is the present process, 0 while there is none.
func (m *Managed) Pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

func (m *Managed) setPid(pid int) { m.setChild(pid, nil) }

func (m *Managed) setChild(pid int, ended <-chan *os.ProcessState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pid, m.ended = pid, ended
}

// setEnding notes that the process is ended on purpose.
func (m *Managed) setEnding(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = pid
}

// managedConfig leaves out what one host's engine doesn't need: without the
// Kubernetes interface and the foreign snapshotters it boots in 20 ms.
const managedConfig = `# Written by dunnage at each start of its own containerd.
version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = %q
`

func (m *Managed) configFile() string { return filepath.Join(m.dir(), "config.toml") }

// root is where containerd keeps its data.
func (m *Managed) root() string { return filepath.Join(m.cfg.StateDir, "containerd") }

func (m *Managed) writeConfig() error {
	for _, dir := range []string{m.root(), m.dir()} {
		if err := regular.MkdirThrough(dir, 0o711); err != nil {
			return fmt.Errorf("make containerd's directory: %w", err)
		}
	}
	text := fmt.Sprintf(managedConfig, m.root(), filepath.Join(m.dir(), "state"), m.Address())
	if err := regular.WriteFile(m.configFile(), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	return nil
}

// bootLimit is what containerd gets until its socket answers; a large database
// on a slow disk takes seconds.
const bootLimit = 30 * time.Second

func (m *Managed) start(ctx context.Context) error {
	if err := m.writeConfig(); err != nil { // who removed the socket may have removed the rest
		return err
	}
	log, err := m.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(m.binary, "--config", m.configFile())
	cmd.Stdout, cmd.Stderr = log, log
	// That the service is ready is the agent's to say.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	// A session of its own: neither a Ctrl-C nor the end of the agent reaches it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.binary, err)
	}
	ended := make(chan *os.ProcessState, 1)
	go func() { // ends with containerd; without it a zombie would be left
		_ = cmd.Wait()
		ended <- cmd.ProcessState
	}()
	if err := m.awaitSocket(ctx, ended); err != nil {
		return errors.Join(err, ignoreDone(cmd.Process.Kill()))
	}
	m.setChild(cmd.Process.Pid, ended)
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (m *Managed) awaitSocket(ctx context.Context, ended <-chan *os.ProcessState) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("containerd does not answer within %s; see %s: %w", bootLimit, m.LogFile(), spec.ErrUnavailable))
	defer cancel()
	for !answers(ctx, m.Address()) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case state := <-ended:
			return fmt.Errorf("containerd ended at once (%s); see %s: %w", state, m.LogFile(), spec.ErrUnavailable)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// logLimit is the size in bytes at which a start begins a new log file.
const logLimit = 10 << 20

func (m *Managed) openLog() (*os.File, error) {
	// A link is put aside like a full one: it may lead to a file of others.
	if info, err := os.Lstat(m.LogFile()); err == nil && (info.Size() > logLimit || info.Mode()&os.ModeSymlink != 0) {
		if err := os.Rename(m.LogFile(), m.LogFile()+".1"); err != nil {
			return nil, fmt.Errorf("rotate containerd's log: %w", err)
		}
	}
	f, err := os.OpenFile(m.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o640) // a FIFO would block
	if err != nil {
		return nil, fmt.Errorf("open containerd's log: %w", err)
	}
	return f, nil
}

// Run starts containerd again whenever it has died, with growing pauses, until
// ctx ends. It leaves containerd running. died hears of each start that is due:
// because of a death, of a socket that somebody has removed, or of a start that
// failed. What Restart ends is its caller's to tell.
func (m *Managed) Run(ctx context.Context, died func(text string)) {
	const first, longest, steady = 100 * time.Millisecond, 10 * time.Second, time.Minute
	pause := first
	failed := errors.New("the process of the one that answered isn't known") // why there is none
	for {
		began := time.Now()
		lost := false
		if pid := m.Pid(); pid != 0 {
			var gone bool
			if gone, lost = m.awaitEnd(ctx, pid); !gone {
				return // ctx ended first
			}
		}
		if time.Since(began) > steady {
			pause = first
		}
		how, meant := m.bury(failed)
		if lost {
			how = "somebody removed containerd's socket " + m.Address() + ", without which no other agent can use it: it was ended"
		}
		m.cfg.Log.Warn("containerd died, starting it again", "how", how, "pause", pause, "log", m.LogFile())
		if !meant {
			died(fmt.Sprintf("%s; it is started again in %s; its log is %s", how, pause, m.LogFile()))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
		if failed = m.start(ctx); failed != nil && ctx.Err() == nil {
			m.cfg.Log.Error("start containerd", "error", failed)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// socketCheck is how often Run looks whether the socket is still there.
const socketCheck = 2 * time.Second

// awaitEnd waits until the process is gone, unless ctx ends first. It ends one whose
// socket is lost: that answers those alone who are connected already. A second look
// tells it from one that is ending, which takes its socket along.
func (m *Managed) awaitEnd(ctx context.Context, pid int) (gone, lost bool) {
	missing := false
	for ctx.Err() == nil {
		check, cancel := context.WithTimeout(ctx, socketCheck)
		gone = waitGone(check, pid)
		cancel()
		if gone {
			break
		}
		info, err := os.Lstat(m.Address())
		was := missing
		missing = errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() != fs.ModeSocket
		if !missing || !was || ctx.Err() != nil {
			continue
		}
		lost = true
		if err := killProcess(pid); err != nil {
			m.cfg.Log.Error("end containerd, whose socket is lost", "pid", pid, "error", err)
		}
	}
	return gone, lost
}

// bury says how the process that is gone ended, or why there was none, and
// whether Restart ended it.
func (m *Managed) bury(failed error) (how string, meant bool) {
	m.mu.Lock()
	pid, ended := m.pid, m.ended
	meant = pid != 0 && pid == m.ending
	m.pid, m.ended, m.ending = 0, nil, 0
	m.mu.Unlock()
	switch {
	case pid == 0:
		return "containerd can't be started: " + spec.Text(failed, spec.ErrUnavailable), meant
	case ended == nil:
		return fmt.Sprintf("containerd (process %d) died (how isn't known: an earlier agent started it)", pid), meant
	}
	return fmt.Sprintf("containerd (process %d) died (%s)", pid, <-ended), meant
}

// Stop ends containerd, for tests and removal; Run must have returned. Shims and
// containers live on, so remove those first.
func (m *Managed) Stop(ctx context.Context) error {
	pid := m.Pid()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop containerd: %w", err)
	}
	if !waitGone(ctx, pid) {
		return fmt.Errorf("stop containerd (process %d): %w", pid, context.Cause(ctx))
	}
	m.setPid(0)
	if err := os.Remove(m.Address()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove containerd's socket: %w", err)
	}
	return nil
}
