package orchestrator

import (
	"context"
	"io"
	"net/netip"
	"time"

	"dunnage/spec"
)

// Engine runs containers. Every method is safe for concurrent use, idempotent
// where it changes something, and returns when ctx ends.
type Engine interface {
	// Instances lists every container that dunnage owns, sorted by ID.
	Instances(ctx context.Context) ([]spec.Instance, error)

	// Runs reports whether the kernel knows a process of the container. It asks
	// nobody else, so that it answers at once.
	Runs(id string) bool

	// Usage reads from the kernel what the container uses, without its network;
	// false without a process. It asks nobody else either.
	Usage(id string) (spec.Usage, bool)
	// Own counts what dunnage's own programs take, in an order of their own, and
	// HostSize what the host has: cores, and bytes of memory.
	Own(ctx context.Context) []spec.OwnStats
	HostSize() (cores int, memory int64)

	// Create makes the container and its writable layer, without a process.
	// An existing one is left as it is. A missing image is an error that
	// wraps spec.ErrNotFound.
	Create(ctx context.Context, r spec.CreateRequest) error

	// Start gives the container a process, deleting the record of an exited
	// one; a running one is left as it is. It never makes a second process:
	// while the earlier one may live (PhaseLost) it returns an error.
	Start(ctx context.Context, id string) error

	// User is the user that the container's process is started as.
	User(ctx context.Context, id string) (uid, gid uint32, err error)

	// Limit changes the limits of a container, whose process goes on, and of
	// what it starts later. What can't be, such as less memory than is in use,
	// wraps spec.ErrRefused.
	Limit(ctx context.Context, id string, l spec.Limits) error

	// Signal sends sig ("SIGTERM", or "" for the container's own stop signal).
	// A process that is gone already is success.
	Signal(ctx context.Context, id, sig string) error

	// Remove kills what still runs, then deletes task, container, writable
	// layer and anonymous volumes. A container that is gone is success.
	Remove(ctx context.Context, id string) error

	// Tail returns the last lines that a replica wrote since a time, oldest
	// first, each cut to a length that a person reads. It needs no process,
	// only the log.
	Tail(ctx context.Context, r spec.ReplicaKey, since time.Time, lines int) ([]string, error)

	// Changes delivers a value whenever something may have changed; values may
	// be lost or doubled. It is closed when ctx ends.
	Changes(ctx context.Context) <-chan struct{}
}

// Images stores images.
type Images interface {
	// Pull resolves ref, downloads and unpacks what is missing, syncs it to
	// disk and pins it by digest. progress may be called from any goroutine.
	Pull(ctx context.Context, ref string, progress func(spec.PullProgress)) (spec.PinnedImage, error)
	// Resolve finds the image for ref among the stored and unpacked ones
	// (ref may carry a digest), or wraps spec.ErrNotFound.
	Resolve(ctx context.Context, ref string) (spec.PinnedImage, error)
	// Hold is Resolve for somebody who is about to use the image: it survives
	// removal and collection under name from here on, with what that holds
	// already, until Retain(name, nil).
	Hold(ctx context.Context, name, ref string) (spec.PinnedImage, error)
	// Missing asks the registry what a Pull of ref would download.
	Missing(ctx context.Context, ref string) ([]spec.MissingBlob, error)
	// Healthcheck is the stored image's HEALTHCHECK as a probe, nil if it has none.
	Healthcheck(ctx context.Context, digest string) (*spec.Probe, error)
	Load(ctx context.Context, archive io.Reader) ([]spec.Image, error)
	// NewLayers are those of an archive's layers that a Load of it adds to what
	// there is: not those that are stored, or that it mends.
	NewLayers(ctx context.Context, layers []spec.MissingBlob) ([]spec.MissingBlob, error)
	ListImages(ctx context.Context) ([]spec.Image, error)
	RemoveImage(ctx context.Context, ref string) error
	// Retain makes the digests survive removal and collection under the name
	// of a release; an empty list lets go of it, or of what is held under it.
	Retain(ctx context.Context, name string, images []spec.PinnedImage) error
	// Retained lists the names that something is retained under, sorted.
	Retained(ctx context.Context) ([]string, error)
	// Doubtful lists the images that a power cut may have damaged and that
	// haven't been verified yet, by name. It asks nobody. One without name and
	// digest stands for all, until Verify of it has found out which these are.
	Doubtful() []spec.DoubtfulImage
	// Verify compares such an image with its digests, mends it from what is
	// stored and from the registry, and says what was mended. An error leaves it
	// in doubt. Nothing may run on the image meanwhile.
	Verify(ctx context.Context, digest string) (mended []string, err error)
}

// Disk counts what dunnage keeps on disk, and removes what nobody needs. Methods are
// safe for concurrent use.
type Disk interface {
	// Use lists what takes room, sorted by kind, project and name; what holds it
	// is as Collect sees it while the disk isn't short. It is cheap: what can't change is counted
	// once, and a directory again only after 20 times what that took last.
	// While containerd doesn't answer, an error that is a *spec.UncountedError comes
	// beside what is known without it.
	Use(ctx context.Context) ([]spec.DiskItem, error)
	// UseNow is Use that finds out within a second that containerd doesn't answer; what
	// holds it is as Collect sees it with spec.UsualCollection(short).
	UseNow(ctx context.Context, short bool) ([]spec.DiskItem, error)
	// Filesystems are those that Use counts on, each once. They answer
	// without containerd.
	Filesystems(ctx context.Context) ([]spec.Filesystem, error)
	// Collect removes what nobody needs, or says what it would remove. An error
	// may come beside what has been removed all the same.
	Collect(ctx context.Context, r spec.CollectRequest) (spec.Collection, error)
}

// Volumes keeps named volumes.
type Volumes interface {
	// VolumeExists reports whether the volume has been created.
	VolumeExists(ctx context.Context, id string) (bool, error)
	RemoveVolume(ctx context.Context, id string) error
}

// Terminal is the user's side of an exec. It stands in package spec, because
// an adapter's method must have this very type to satisfy Execer.
type Terminal = spec.Terminal

// Execer runs a command inside a running container.
type Execer interface {
	// Exec returns the exit code. When ctx ends, the command and what it
	// started are killed and reaped, and the error wraps ctx's.
	Exec(ctx context.Context, r spec.ExecRequest, t Terminal) (int, error)
}

// Network gives replicas addresses and owns the rules. Every method is safe
// for concurrent use and idempotent.
type Network interface {
	// Attach makes the replica's namespace, link, routes and host files, or
	// completes what is missing of them.
	Attach(ctx context.Context, e spec.Endpoint) error
	// Detach removes them and the conntrack entries of its addresses.
	Detach(ctx context.Context, replica string) error
	// Attached lists the replicas that have a namespace, link or files, and
	// those of them that have all; both sorted.
	Attached(ctx context.Context) (some, whole []string, err error)
	// Sweep removes what earlier agents and Detach have left of links, routes
	// and addresses and nothing wants, and names what of it somebody may ask for.
	// To call it often is cheap.
	Sweep(ctx context.Context) (removed []string, err error)
	// Namespace and Files say where Attach puts things.
	Namespace(replica string) string
	Files(replica string) spec.HostFiles
	// WriteNames rewrites a replica's hosts file in place.
	WriteNames(ctx context.Context, e spec.Endpoint) error

	// Apply makes the kernel's rules equal to r: the scaffold where networks
	// changed, then the nat table in one commit per address family, then the
	// UDP conntrack entries of backends that r no longer names. It writes
	// nothing if the kernel's rules are equal already.
	Apply(ctx context.Context, r spec.Routing) error
	// Left is what the last Apply of an earlier agent left, and whether Apply
	// would leave the same for it now, so that all that differs is others' doing.
	// Zero and false where nobody knows, as after a reboot.
	Left() (r spec.Routing, same bool)
	// Written counts what Apply has written in this process so far.
	Written() spec.Written
	// Routed parses the kernel's nat rules back: the replica addresses that a
	// rule names now, sorted, and whether they equal what Apply(r) would leave.
	Routed(ctx context.Context, r spec.Routing) (named []netip.Addr, equal bool, err error)
	// Connections counts the live TCP connections and UDP flows that
	// conntrack sends to each address.
	Connections(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]int, error)
	// LinkBytes counts what went through the replicas' own links.
	LinkBytes() (map[string]spec.LinkBytes, error)
	// Holder names the host process that listens on the port ("nginx (pid 812)"),
	// or is empty. A zero ip means every address.
	Holder(ctx context.Context, ip netip.Addr, port uint16, proto spec.Protocol) (string, error)
	// Changes delivers a value whenever something of what Apply and Attach leave
	// may have changed, at most a few times a second; values may be lost or
	// doubled. It is closed when ctx ends.
	Changes(ctx context.Context) <-chan struct{}
	// Damaged names how the kernel differs from what Apply(r) left, and from
	// what Attach left of the replicas. Nothing of it may change while somebody
	// applies or attaches.
	Damaged(ctx context.Context, r spec.Routing, replicas []string) ([]spec.Damage, error)
	// Problems names what others have set up that may stop replicas' traffic,
	// one line each.
	Problems(ctx context.Context) ([]string, error)
	// Fronts are the host's own addresses that clients of other machines use,
	// at most one a family, IPv4 first. A host without any answers at the
	// gateway's address.
	Fronts(ctx context.Context) ([]netip.Addr, error)
	// Trace follows packets through everybody's rules as the kernel has them
	// now, and counts the connections for their addresses.
	Trace(ctx context.Context, packets []spec.Packet) ([]spec.Trace, error)
	// SocketPrograms names the BPF programs that may drop what comes to a process's
	// sockets or leaves them; a process that is gone has none.
	SocketPrograms(pid int) ([]string, error)
	// Compare says which rules Apply(to) would add and remove after Apply(from).
	// It asks the kernel nothing.
	Compare(from, to spec.Routing) (spec.RuleDiff, error)
	// RuleSet returns the rules of r rendered and as the kernel has them.
	RuleSet(ctx context.Context, r spec.Routing) (spec.RuleSet, error)
}

// Health watches running replicas.
type Health interface {
	// Watch replaces the set of processes that are probed.
	Watch(targets []spec.ProbeTarget)
	// Again lets those of the replicas begin anew that have failed before they
	// were ever healthy.
	Again(replicas []string)
	// Assure probes those of the replicas that count as healthy once, now, and
	// returns those that don't answer soon, with why: they are unhealthy.
	Assure(ctx context.Context, replicas []string) map[string]string
	// Health says how the process of replica that started at started fares,
	// and the last failure in one line.
	Health(replica string, started time.Time) (spec.Health, string)
	// Output is what the command printed last by which the replica's present
	// process fails, ten lines at most; nil where no command fails.
	Output(replica string) []string
	// Checks are the last results of its probes, oldest first.
	Checks(replica string, started time.Time) []spec.Check
}

// Visits asks the addresses that clients use, on the way that clients take.
type Visits interface {
	// Watch replaces the set of targets. One that was there, by its key, goes on
	// with what is known of it.
	Watch(targets []spec.VisitTarget)
	// Again asks at once, because connections may go elsewhere from now on.
	Again()
	// Reach says what was found at each target, sorted by key.
	Reach() []spec.Reach
	// Tally counts the visits of the project's targets that began at since or
	// later, sorted by key. It goes back to the beginning of the operation that
	// is under way, or of the last one, and a minute at least.
	Tally(project string, since time.Time) []spec.VisitTally
}

// Store keeps what outlives the agent.
type Store interface {
	Load() (spec.State, error)
	// Commit makes all of c durable, or nothing of it.
	Commit(c spec.Commit) error
	// Sealed reads a version with what is sealed, or wraps spec.ErrNotFound.
	Sealed(p spec.SecretPin) (spec.SecretVersion, error)
	// Audit sends the entries from seq on, in order, until send returns an error.
	Audit(seq uint64, send func(spec.AuditEntry) error) error
	// Receipts lists a project's kept receipts, oldest first.
	Receipts(project string) ([]spec.Receipt, error)
	// Compact writes the file anew, so that nothing of what was dropped is left
	// in it, and then clears the mark SecretKey.Compact.
	Compact() error
}

// Vault seals secrets and opens them. It keeps nothing but keys, in memory, and
// the key file. Methods are safe for concurrent use. What can't be done for want
// of the key is an error that wraps spec.ErrUnavailable and says what to do.
type Vault interface {
	// Load takes the store's key record, nil if it has none, and opens it if the
	// source of the outer key allows. A record that it returns is to be saved.
	Load(key *spec.SecretKey) (*spec.SecretKey, error)
	Status() spec.KeyStatus
	// Look is Status after a look at the source of the key, if that costs nothing.
	Look() spec.KeyStatus
	// Unlock opens with a passphrase, or sets the first one. A record that it
	// returns is to be saved.
	Unlock(passphrase spec.SecretValue) (*spec.SecretKey, error)
	// Rotate prepares a new outer key, from a passphrase where that is the
	// source; full: and a new key for all values.
	Rotate(passphrase spec.SecretValue, full bool) (spec.KeyRotation, error)
	// Reset prepares new keys in place of lost ones; Reseal is nil, since what was
	// sealed opens never again. It refuses where the vault is open or could be.
	Reset(passphrase spec.SecretValue) (spec.KeyRotation, error)

	// Seal returns what is to be stored as v.Sealed; v has everything else.
	Seal(v spec.SecretVersion, value spec.SecretValue) ([]byte, error)
	Open(v spec.SecretVersion) (spec.SecretValue, error)
}

// Deliverer keeps each replica's secrets on a tmpfs of its own. Methods are
// idempotent and safe for concurrent use.
type Deliverer interface {
	// Paths says where Deliver puts what the container uses.
	Paths(replica string, c spec.Container) spec.SecretPaths
	// Deliver makes the tmpfs and what stands on it equal to d, each file by a
	// rename, and notes the fingerprint last. In between it calls swapped,
	// unless that is nil: a crash before the note repeats both.
	Deliver(ctx context.Context, d spec.Delivery, swapped func() error) error
	// Delivered lists the replicas that have a tmpfs, with the fingerprint of
	// what is complete there.
	Delivered() (map[string]string, error)
	// Reaches reports whether the process sees what Deliver writes: not so when
	// the tmpfs that its container was started with has been unmounted.
	Reaches(replica string, pid int) (bool, error)
	// Withdraw removes a replica's tmpfs.
	Withdraw(ctx context.Context, replica string) error
}

// Clock is the time, so that tests can own it.
type Clock interface {
	Now() time.Time
}
