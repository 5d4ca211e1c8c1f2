package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Release is one immutable, numbered state of a project: what was asked for,
// with images pinned to digests and host ports resolved.
type Release struct {
	Number  int                    `json:"number"` // 1 and up, per project
	Created time.Time              `json:"created"`
	Reason  string                 `json:"reason"` // "deploy", "scale web=3", "rollback to 4" ...
	Project Project                `json:"project"`
	Images  map[string]PinnedImage `json:"images"`            // by service name
	Secrets map[string]SecretPins  `json:"secrets,omitempty"` // by service name

	// State is filled in for history and isn't stored: the record of the
	// project knows it.
	State ReleaseState `json:"state,omitempty"`
	Cause string       `json:"cause,omitempty"` // as State; why it was given up, or stands still, one line
}

// ReleaseState is what became of a release.
type ReleaseState string

// The states of a release; empty = it was replaced before it converged.
const (
	ReleaseCurrent ReleaseState = "current" // desired, and has converged
	ReleaseRolling ReleaseState = "rolling" // desired, and hasn't yet
	ReleasePaused  ReleaseState = "paused"  // as rolling, and stands still until somebody says so
	ReleaseRan     ReleaseState = "ran"     // converged, later replaced
	ReleaseFailed  ReleaseState = "failed"  // given up
	ReleaseLeft    ReleaseState = "left"    // somebody rolled back from it
)

// ForgottenText says in a line which releases of a project were forgotten, with what;
// numbers rise, and there is one at least.
func ForgottenText(numbers []int) string {
	if len(numbers) == 1 {
		return fmt.Sprintf("forgot release %d, with its receipts", numbers[0])
	}
	return fmt.Sprintf("forgot %d releases, %d to %d, with their receipts", len(numbers), numbers[0], numbers[len(numbers)-1])
}

// PinnedImage is an image as a release pins it.
type PinnedImage struct {
	Ref    string `json:"ref"`            // canonical reference with tag, for example docker.io/library/nginx:1.27
	Digest string `json:"digest"`         // of the manifest or index, "sha256:..."
	Size   int64  `json:"size,omitempty"` // compressed bytes
}

// Pinned is the reference that can only mean this content: "<ref>@<digest>".
func (i PinnedImage) Pinned() string { return i.Ref + "@" + i.Digest }

// Generation is that of the service's replicas in this release. Who joins the
// network of another service is replaced with it, and the other way round where
// they go in step.
func (r Release) Generation(service string) string {
	s, _ := r.Project.Service(service)
	if s.Container.Network != NetworkService {
		return r.owner(s)
	}
	to, _ := r.Project.Service(s.Container.Joins)
	return r.generation(s, r.owner(to))
}

// owner is the generation of a service that has no other one's network.
func (r Release) owner(s Service) string {
	var with []string
	for _, o := range r.Project.Services {
		if o.Container.Joins == s.Name && r.Project.InStep(o) {
			with = append(with, o.Name, r.generation(o, ""))
		}
	}
	return r.generation(s, strings.Join(with, " "))
}

// Joined is the replica whose network replica n of the service shares, "" if it
// doesn't share any.
func (r Release) Joined(s Service, n int) string {
	if s.Container.Network != NetworkService {
		return ""
	}
	if to, _ := r.Project.Service(s.Container.Joins); n > to.Replicas { // an orphan, from when there were more
		n = 1
	}
	return ReplicaID(r.Project.Name, s.Container.Joins, r.Generation(s.Container.Joins), n)
}

func (r Release) generation(s Service, joined string) string {
	var secrets []SecretPin
	if !s.OnSecretChange.Live() {
		secrets = r.Pins(s)
	}
	return Generation(s.Container, r.Images[s.Name].Digest, joined, secrets)
}

// Generation names what a replica is made of: a hash over the container's
// shape, the image digest, the generations that go in step with it and the
// versions of its secrets, 64 hex digits. Replicas of the same generation are
// interchangeable.
func Generation(c Container, digest, joined string, secrets []SecretPin) string {
	c.Probes = unmarked(c.Probes)
	b, err := json.Marshal(struct {
		Container Container
		Digest    string
		Joined    string      `json:",omitempty"`
		Secrets   []SecretPin `json:",omitempty"`
	}{c, digest, joined, secrets})
	if err != nil { // only a type that JSON can't encode could cause it
		panic(fmt.Sprintf("encode container: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// unmarked are the probes without where they come from, which makes no other replica.
func unmarked(probes []Probe) []Probe {
	if !slices.ContainsFunc(probes, func(p Probe) bool { return p.FromImage }) {
		return probes
	}
	out := slices.Clone(probes)
	for i := range out {
		out[i].FromImage = false
	}
	return out
}

// Pins are the versions of the service's secrets, by name.
func (r Release) Pins(s Service) []SecretPin {
	var pins []SecretPin
	for _, name := range s.Container.SecretNames() {
		pins = append(pins, r.Secrets[s.Name][name])
	}
	return pins
}

// SecretsFingerprint names the versions of the service's secrets, "" without any.
func (r Release) SecretsFingerprint(s Service) string {
	pins := r.Pins(s)
	if len(pins) == 0 {
		return ""
	}
	b, err := json.Marshal(pins)
	if err != nil { // as in generation
		panic(fmt.Sprintf("encode secret versions: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// ReplicaID is the derived name of replica n (1 and up) of a generation:
// "<project>-<service>-<first 8 digits of the generation>-<n>".
func ReplicaID(project, service, generation string, n int) string {
	return fmt.Sprintf("%s-%s-%.8s-%d", project, service, generation, n)
}

// ShortReplica is a replica's name within its project, "web-1": its generation
// left out, it goes from one release to the next.
func ShortReplica(service, id string) string {
	return service + "-" + id[strings.LastIndexByte(id, '-')+1:]
}
