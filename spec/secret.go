package spec

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Bounds of secrets.
const (
	MaxSecret    = 512 << 10 // bytes of a value, as Docker and podman have it, about
	KeptVersions = 3         // versions of a secret that stay, beside those in use
	MaxKeep      = 100       // as many as may be asked for instead
	KeptAudit    = 100_000   // entries of the audit record that stay
)

// secretName says nothing of the length, which would make it large.
var secretName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// CheckSecretName refuses what can't be the name of a secret: it is a file name
// as well.
func CheckSecretName(name string) error {
	if len(name) > 128 || !secretName.MatchString(name) {
		return fmt.Errorf("secret name %.80q: use letters, digits, - _ and . (at most 128, the first a letter or digit): %w", name, ErrRefused)
	}
	return nil
}

// SecretValue is a secret in clear. It prints, logs and encodes itself as
// "[secret]": only Reveal gives the value out.
//
// The bytes stand behind two pointers, because fmt asks no method of what is in an
// unexported field, nor for the verbs p and w: there it follows one pointer at
// the most, and prints the next as an address.
type SecretValue struct{ bytes **[]byte }

const redacted = "[secret]"

// NewSecretValue takes the bytes over: Clear overwrites them.
func NewSecretValue(b []byte) SecretValue {
	p := &b
	return SecretValue{&p}
}

// Reveal is the value itself, not a copy.
func (v SecretValue) Reveal() []byte {
	if v.bytes == nil {
		return nil
	}
	return **v.bytes
}

// Clear overwrites the value.
func (v SecretValue) Clear() { clear(v.Reveal()) }

// Equal compares in a time that doesn't depend on where the values differ.
func (v SecretValue) Equal(w SecretValue) bool {
	return subtle.ConstantTimeCompare(v.Reveal(), w.Reveal()) == 1
}

// Check refuses a value that is empty or too long.
func (v SecretValue) Check() error {
	if len(v.Reveal()) == 0 {
		return fmt.Errorf("the value is empty: %w", ErrRefused)
	}
	if len(v.Reveal()) > MaxSecret {
		return fmt.Errorf("the value is longer than %d KiB; mount a larger file as a volume: %w", MaxSecret>>10, ErrRefused)
	}
	return nil
}

// Format prints no value, whatever the verb.
func (SecretValue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is no value.
func (SecretValue) String() string { return redacted }

// MarshalText encodes no value, in JSON as well.
func (SecretValue) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText refuses: a value that came that way would be "[secret]".
func (*SecretValue) UnmarshalText([]byte) error {
	return errors.New("a secret isn't read from text")
}

// SecretID names a secret in the store.
type SecretID struct {
	Project string `json:"project,omitempty"` // empty = of the host: every project may use it
	Name    string `json:"name"`
}

// String is the ID as people see it: "db-password", or "shop/db-password" for a project's own.
func (id SecretID) String() string {
	if id.Project == "" {
		return id.Name
	}
	return id.Project + "/" + id.Name
}

// Check refuses what can't be a secret's name or its project's.
func (id SecretID) Check() error {
	if id.Project != "" && (!idPart.MatchString(id.Project) || len(id.Project) >= MaxNames) {
		return fmt.Errorf("project name %.80q: use letters, digits and single -, _ or . between them: %w", id.Project, ErrRefused)
	}
	return CheckSecretName(id.Name)
}

// SecretOrigin says who decides about a secret's value.
type SecretOrigin string

// The origins.
const (
	OriginSet      SecretOrigin = ""         // `dunnage secret set`
	OriginManifest SecretOrigin = "manifest" // each deploy brings it: Compose's file: and environment:
)

// SecretRecord is what is kept of a secret beside its versions.
type SecretRecord struct {
	SecretID
	Origin  SecretOrigin `json:"origin,omitempty"`
	Current int          `json:"current"`        // the version that a deploy takes
	Next    int          `json:"next"`           // number of the next version; never goes back
	Keep    int          `json:"keep,omitempty"` // versions that stay; 0 = KeptVersions
	By      string       `json:"by,omitempty"`   // user who asked for Current last, as Actor.Name has it; empty = not known
}

// SecretVersion is one sealed value.
type SecretVersion struct {
	SecretID
	Version int       `json:"version"`
	Nonce   string    `json:"nonce"` // tells versions of equal number apart, after an old store came back: 16 random hex digits
	Created time.Time `json:"created"`
	Before  int       `json:"before,omitempty"` // the version that was current when it came; 0 = none
	Sealed  []byte    `json:"sealed"`           // as package secrets writes it
}

// SecretPin is a version of a secret as a release has it. Two equal pins have
// the same value.
type SecretPin struct {
	SecretID
	Version int    `json:"version"`
	Nonce   string `json:"nonce"`
}

// SecretPins are versions by the name that the manifest has.
type SecretPins map[string]SecretPin

// Pin is how a release names the version.
func (v SecretVersion) Pin() SecretPin { return SecretPin{v.SecretID, v.Version, v.Nonce} }

// SecretKey is how the key of all values is kept: sealed by another one that
// comes from outside the store.
type SecretKey struct {
	Store   string    `json:"store"`             // random UUID, in the associated data of everything sealed
	Source  string    `json:"source"`            // kind of the outer key's source: "file", "credential", "passphrase", "command"
	Check   []byte    `json:"check"`             // tells whether an outer key is the one, without opening anything
	Sealed  []byte    `json:"sealed"`            // the data key
	KDF     *KDF      `json:"kdf,omitempty"`     // of a passphrase
	Created time.Time `json:"created"`           // of the outer key's use
	Compact bool      `json:"compact,omitempty"` // the file has yet to be written anew, without what was sealed by earlier keys
}

// KDF are the parameters that made an outer key of a passphrase with Argon2id.
type KDF struct {
	Salt    []byte `json:"salt"`
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}

// Secret is a secret as a container uses it: as a file, as an environment
// variable, or as a part of its configs, in which case it has neither Target nor Env.
type Secret struct {
	Name   string  `json:"name"`             // as the manifest has it
	Target string  `json:"target,omitempty"` // absolute path of its file
	Env    string  `json:"env,omitempty"`    // the variable that gets it
	UID    *uint32 `json:"uid,omitempty"`    // nil = the container's user
	GID    *uint32 `json:"gid,omitempty"`    // nil = the container's group
	Mode   uint32  `json:"mode,omitempty"`   // permission bits of the file, default 0400
}

// SecretDir is where secrets stand in a container unless they say otherwise.
// Files below it can be swapped while the container runs.
const SecretDir = "/run/secrets"

// InSecretDir reports whether the path is one below SecretDir.
func InSecretDir(target string) bool { return strings.HasPrefix(target, SecretDir+"/") }

// SecretDeclaration says what a name of Container.Secrets stands for. It has no
// value.
type SecretDeclaration struct {
	Name     string       `json:"name"`               // as the manifest has it
	Store    string       `json:"store"`              // SecretID.Name; differs from Name where the manifest says so
	Origin   SecretOrigin `json:"origin,omitempty"`   // OriginManifest: the deploy brings the value, kept as the project's own
	Optional bool         `json:"optional,omitempty"` // may be absent from the store

	// Where the client reads the value, with OriginManifest one of them. Nobody
	// else looks at it: it is kept so that `dunnage config` can print it.
	File        string `json:"file,omitempty"`        // absolute path
	Environment string `json:"environment,omitempty"` // a variable's name
}

// variable is what any shell takes as a variable's name.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckVariable refuses what can't be the name of an environment variable that
// gets a secret.
func CheckVariable(name string) error {
	if !variable.MatchString(name) {
		return fmt.Errorf("variable %.80q: use letters, digits and _, no digit first: %w", name, ErrRefused)
	}
	return nil
}

// OnSecretChange is what is done about a new version of a secret that a service uses.
type OnSecretChange string

// What can be done. A signal is written "signal:HUP" in the manifest and kept as "SIGHUP".
const (
	SecretRestart OnSecretChange = ""     // new replicas, rolled out as a new release
	SecretNone    OnSecretChange = "none" // its files are swapped
)

// Signal is the signal that tells the process of swapped files, "" if there is none.
func (o OnSecretChange) Signal() string {
	if o == SecretRestart || o == SecretNone {
		return ""
	}
	return string(o)
}

// Live reports whether running replicas get new versions.
func (o OnSecretChange) Live() bool { return o != SecretRestart }

// Delivery is what stands on a replica's tmpfs.
type Delivery struct {
	Replica     string
	Fingerprint string          // of what is delivered; no value can be told from it
	UID, GID    uint32          // the container's user, who owns the file with the variables
	Files       []DeliveredFile // sorted by Target
	Env         []DeliveredEnv  // sorted by Name
}

// DeliveredFile is a file of a Delivery.
type DeliveredFile struct {
	Target   string // as the container sees it
	Value    SecretValue
	UID, GID uint32
	Mode     uint32
}

// DeliveredEnv is a variable of a Delivery.
type DeliveredEnv struct {
	Name  string
	Value SecretValue
}

// SecretPaths says where a replica's Delivery stands on the host, for the engine
// to mount it. Without secrets it is zero.
type SecretPaths struct {
	Dir   string            // the files below SecretDir; empty = none
	Files map[string]string // the others: target -> path
	Env   string            // the file with the variables; empty = none
}

// SecretStatus is one line of `secret ls`: nothing in it tells of the value.
type SecretStatus struct {
	SecretID
	Origin   SecretOrigin `json:"origin,omitempty"`
	Version  int          `json:"version"`
	Versions []int        `json:"versions"`          // kept, oldest first
	Created  time.Time    `json:"created"`           // of the version
	UsedBy   []string     `json:"used_by,omitempty"` // "project/service", sorted
	Behind   []SecretUse  `json:"behind,omitempty"`  // projects whose desired release has another version, sorted
}

// SecretUse is the version of a secret that a project's desired release has.
type SecretUse struct {
	Project string `json:"project"`
	Version int    `json:"version"`
}

// SecretChange is the answer to a change of a secret.
type SecretChange struct {
	SecretStatus
	Unchanged  bool        `json:"unchanged,omitempty"`  // the value was the current one already
	Operations []Operation `json:"operations,omitempty"` // that bring it to the projects that use it
	Later      []string    `json:"later,omitempty"`      // projects that get it after the change or the pause that they are in
}

// Actor is who asked for something, as the kernel told.
type Actor struct {
	UID  *int   `json:"uid,omitempty"`  // nil = the agent itself
	User string `json:"user,omitempty"` // its name, where it has one
}

// Name is the actor as operations and receipts have it: its name, else "user
// 1000"; empty = the agent itself.
func (a Actor) Name() string {
	if a.User == "" && a.UID != nil {
		return fmt.Sprintf("user %d", *a.UID)
	}
	return a.User
}

// SecretRequest sets values, each by the name of its secret: all or none.
type SecretRequest struct {
	Project string // empty = of the host
	Values  map[string]SecretValue
	Keep    int // versions that stay from now on, 1 to MaxKeep; 0 = as many as so far
	By      Actor
}

// KeyStatus says whether secrets can be opened.
type KeyStatus struct {
	Source string `json:"source"`           // what opened them, or should: "file /var/lib/dunnage/secrets.key", "passphrase"
	Next   string `json:"next,omitempty"`   // open, but --key-source is another one, to which `rotate-key` moves
	Lost   string `json:"lost,omitempty"`   // open, but Source hasn't the key any more: why, one line; the next start finds it locked
	Locked string `json:"locked,omitempty"` // why they can't, one line; empty = they can

	Passphrase bool `json:"passphrase,omitempty"` // locked, and a passphrase opens them
	Unset      bool `json:"unset,omitempty"`      // and there is none yet: the first one that comes is it
}

// KeyRotation is a change of keys that is ready to be saved. After Key and all
// that Reseal gives are durable, Finish makes the new outer key the one in its
// place; if they can't be, Abandon forgets it. Until one of them is called, a
// crash leaves an outer key in its place that opens what is stored.
type KeyRotation struct {
	Key     SecretKey
	Reseal  func(SecretVersion) ([]byte, error) // nil = what is sealed stays as it is
	Finish  func() error
	Abandon func() error
}
