package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
	"dunnage/test/powercut"
)

// stackRun is what was done with an agent and its containerd on a disk that
// notes it.
type stackRun struct {
	*host
	faults string // directory of the fault package
	disk   *powercut.Disk
	boots  int
	acks   []stackAck
	loads  [][2]int      // the instants between which an image was loaded
	limit  time.Duration // for all to be served after a boot
}

// stackAck is what had been acknowledged at an instant.
type stackAck struct {
	instant int
	serves  string   // the version that was deployed last; "" = none yet
	images  []string // what was loaded
}

func newStackRun(t *testing.T, sabotage string) *stackRun {
	t.Helper()
	r := &stackRun{host: newBareHost(t), faults: t.TempDir(), limit: 40 * time.Second}
	program, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	r.agent.Program = program
	r.agent.Env = []string{"DUNNAGE_FAULT=" + r.faults, "DUNNAGE_SABOTAGE=" + sabotage}
	r.disk = powercut.New(t, 512<<20)
	r.disk.Mount(r.lab.Path("state"))
	r.boot()
	return r
}

// boot starts the agent on a machine that was restarted.
func (r *stackRun) boot() {
	r.t.Helper()
	r.boots++
	if err := os.WriteFile(filepath.Join(r.faults, "boot"), fmt.Appendf(nil, "boot-%d", r.boots), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.start()
}

func stackManifest(version string) string {
	return fmt.Sprintf(`name: shop
services:
  web:
    image: example.org/hello:%s
    ports: ["8080:80"]
    pull_policy: never
    stop_grace_period: 1s
    x-dunnage: {drain: 100ms, probe: {http: {port: 80, path: /healthz}, interval: 200ms}}
`, version)
}

// ack notes what has been acknowledged by now.
func (r *stackRun) ack(change func(*stackAck)) {
	next := stackAck{}
	if n := len(r.acks); n > 0 {
		next = r.acks[n-1]
		next.images = slices.Clone(next.images)
	}
	change(&next)
	next.instant = r.disk.Now()
	r.acks = append(r.acks, next)
}

// bring loads a version, if it isn't there, and deploys it.
func (r *stackRun) bring(version string, load bool) {
	r.t.Helper()
	if load {
		began := r.disk.Now()
		if err := r.agent.LoadImages(r.t.Context(), r.tools, "hello-"+version); err != nil {
			r.t.Fatal(err)
		}
		r.loads = append(r.loads, [2]int{began, r.disk.Now()})
		r.ack(func(a *stackAck) { a.images = append(a.images, "example.org/hello:"+version) })
	}
	r.mustDeploy(stackManifest(version))
	r.ack(func(a *stackAck) { a.serves = version })
}

// cut boots from what the disk may hold after a cut at the instant, and says
// what is lost or doesn't work.
func (r *stackRun) cut(instant int, random *rand.Rand) (took time.Duration, err error) {
	r.t.Helper()
	image := filepath.Join(r.t.TempDir(), "image")
	r.disk.Cut(instant, random, image)
	defer os.Remove(image)
	powercut.Mount(r.t, image, r.lab.Path("state"))
	began := time.Now()
	r.boot()
	defer r.reboot()
	var had stackAck
	may := []string{""} // what may be served: what was acknowledged, or what was coming
	for _, a := range r.acks {
		if a.instant <= instant {
			had, may = a, []string{a.serves}
		} else if a.serves != had.serves {
			may = append(may, a.serves)
			break
		}
	}
	if err := lab.Await(r.t.Context(), r.limit, func() error { return r.serves(may) }); err != nil {
		return 0, err
	}
	took = time.Since(began)
	return took, r.usable(had.images)
}

// instant is one of all, or of those at which an image was loaded: these are few.
func (r *stackRun) instant(end int, random *rand.Rand) int {
	if random.IntN(2) == 0 {
		return random.IntN(end + 1)
	}
	load := r.loads[random.IntN(len(r.loads))]
	return load[0] + random.IntN(load[1]-load[0]+1)
}

// serves looks whether one of the versions is served, and all is well.
func (r *stackRun) serves(may []string) error {
	c := r.client()
	defer c.Close()
	status, err := c.Status(r.t.Context())
	if err != nil {
		return err
	}
	if len(status.Problems) > 0 {
		return errors.New(strings.Join(status.Problems, "; "))
	}
	if len(status.Projects) == 0 && slices.Contains(may, "") {
		return nil
	}
	for _, p := range status.Projects {
		for _, s := range p.Services {
			if s.Ready != s.Wanted || s.Waiting != "" {
				return fmt.Errorf("%s has %d of %d ready: %s", s.Name, s.Ready, s.Wanted, s.Waiting)
			}
		}
	}
	body, err := r.get(8080, "/")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(may, func(v string) bool { return v != "" && strings.Contains(body, v) }) {
		return fmt.Errorf("it serves %q, and should one of %q", body, may)
	}
	return nil
}

// usable runs something from each image that counts as present, and wants those
// that were acknowledged among them.
func (r *stackRun) usable(acknowledged []string) error {
	var images []spec.Image
	if err := json.Unmarshal([]byte(r.must("image", "ls", "--json")), &images); err != nil {
		r.t.Fatal(err)
	}
	var present []string
	for _, i := range images {
		_, version, _ := strings.Cut(i.Ref, ":")
		res := r.deploy(strings.NewReplacer("name: shop", "name: try-"+version, "    ports: [\"8080:80\"]\n", "").Replace(stackManifest(version)))
		switch {
		case res.code == 0:
			present = append(present, i.Ref)
		case strings.Contains(res.stderr, "pull_policy is never"): // a name without an image to run: whoever wants it loads it
		default:
			return fmt.Errorf("image %s is there and can't be used: %s%s", i.Ref, res.stdout, res.stderr)
		}
	}
	for _, ref := range acknowledged {
		if !slices.Contains(present, ref) {
			return fmt.Errorf("image %s was loaded, and is gone; there are %q", ref, present)
		}
	}
	return nil
}

// The power is cut while images are loaded and deployed. After the boot, without
// a registry, what was acknowledged is served, and each image that counts as
// present can be run.
func TestPowerCutsOfTheStack(t *testing.T) {
	r := newStackRun(t, "")
	r.bring("v1", true)
	r.bring("v2", true)
	r.bring("v1", false)
	end := r.disk.Now()
	r.reboot()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	n, lost, slowest := rounds(1, 10), 0, time.Duration(0)
	for range n {
		instant := r.instant(end, random)
		took, err := r.cut(instant, random)
		if err != nil {
			lost++
			t.Errorf("seed %d, cut after write %d of %d: %v", seed, instant, end, err)
		}
		slowest = max(slowest, took)
	}
	log, err := os.ReadFile(r.lab.Path("agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	row(t, "power cuts of the whole stack, while images are loaded and deployed", "what was acknowledged is served, no unusable image",
		fmt.Sprintf("%d of %d cuts lost something; %d images whole, %d mended; served ≤ %.1f s after the agent's start", lost, n,
			strings.Count(string(log), "is whole"), strings.Count(string(log), "and is mended"), slowest.Seconds()), lost == 0)
}

// An agent that neither syncs what it unpacks nor notes it is noticed.
func TestPowerCutsNoticeUnsyncedImages(t *testing.T) {
	r := newStackRun(t, "skip image store sync,skip recent images rename")
	r.bring("v1", true)
	r.limit = 8 * time.Second
	instant := r.disk.Now()
	r.reboot()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	if _, err := r.cut(instant, random); err == nil {
		t.Errorf("seed %d: nothing was synced, and nobody noticed", seed)
	}
}
