package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dunnage/orchestrator/plan"
	"dunnage/orchestrator/world"
	"dunnage/spec"
	"dunnage/store/storetest"
)

// images are the behaviours that random manifests choose from.
var images = map[string]world.Behaviour{
	"fast":     {},
	"slow":     {ReadyAfter: 2 * time.Second, StopTakes: time.Second},
	"stubborn": {ReadyAfter: 200 * time.Millisecond, StopTakes: time.Hour},
	"broken":   {NeverReady: true},
	"crashing": {ReadyAfter: 50 * time.Millisecond, DiesAfter: 20 * time.Millisecond, ExitCode: 1},
	"sickly":   {ReadyAfter: 100 * time.Millisecond, SickAfter: 50 * time.Second},
	"mortal":   {ReadyAfter: 100 * time.Millisecond, DiesAfter: 40 * time.Second, ExitCode: 3},
}

// worlds is how many TestWorld checks, the same ones each time: who runs it
// beside a change sees what the change does. DUNNAGE_WORLDS asks for as many new
// ones (`make worlds`).
const worlds = 2000

func TestWorld(t *testing.T) {
	n, seed := worlds, uint64(0)
	if v := os.Getenv("DUNNAGE_WORLDS"); v != "" {
		var err error
		seed = uint64(time.Now().UnixNano())
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("DUNNAGE_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
		n = 1
	}
	fmt.Printf("seed %d, %d worlds (replay one with DUNNAGE_SEED)\n", seed, n)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range uint64(n) {
		g.Go(func() error {
			s := newScenario(seed+i, world.Truth)
			s.run()
			if bad := s.verdict(); bad != "" {
				return fmt.Errorf("DUNNAGE_SEED=%d: %s\n%s", seed+i, bad, s.w)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestWorldSaboteurs shows that each property can fail: with an adapter that
// lies, some world must turn red, with the words that belong to the property.
func TestWorldSaboteurs(t *testing.T) {
	for lie, want := range map[world.Lie]string{
		world.LieUnnamed:      "signalled while rules send connections",
		world.LieNoConns:      "with a connection that had",
		world.LieHealthy:      "which doesn't serve",
		world.LieEqual:        "want the routes",
		world.LieNoLeftovers:  "-ghost",
		world.LieOldGone:      "may still write to its volume",
		world.LieNoQuarantine: "released",
		world.LieDelivered:    "has the secrets",
	} {
		t.Run(strings.ReplaceAll(string(lie), " ", "_"), func(t *testing.T) {
			for seed := range uint64(400) {
				s := newScenario(seed, lie)
				s.run()
				if strings.Contains(s.verdict(), want) {
					return
				}
			}
			t.Fatalf("no world of 400 showed %q", want)
		})
	}
}

// scenario is one random world with a random history.
type scenario struct {
	rng   *rand.Rand
	extra *rand.Rand // of what else services ask for, so that histories stay as they were
	disk  *rand.Rand // of limits for writable layers, and of what is written: likewise
	w     *world.World
	loop  *Loop
	stop  context.CancelFunc
	gaps  []string

	inStep bool // most services share the network of the first, and are replaced with it

	nonces int // made for secrets

	removeUnknown bool   // the flag of the next agent
	pool          string // of the next agent; empty = the usual one
	quiet         bool   // no clients but those of the test
}

func newScenario(seed uint64, lie world.Lie) *scenario {
	s := &scenario{rng: rand.New(rand.NewPCG(seed, 7)), extra: rand.New(rand.NewPCG(seed, 8)), disk: rand.New(rand.NewPCG(seed, 9)), w: world.New(images)}
	s.w.Lie = lie
	s.inStep = s.rng.IntN(4) == 0
	s.start(0)
	return s
}

// start gives the world a fresh agent.
func (s *scenario) start(crashAt int) {
	if s.stop != nil {
		s.stop()
	}
	failEvery := 0
	if crashAt > 0 && s.rng.IntN(3) == 0 {
		failEvery = 3 + s.rng.IntN(10)
	}
	s.w.Restart(crashAt, s.rng.IntN(2) == 0, failEvery)
	s.w.Locked = ""
	if crashAt > 0 && s.rng.IntN(8) == 0 {
		s.w.Locked = "secrets are locked"
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	loop, err := New(ctx, Config{
		Engine: s.w, Images: s.w, Disk: s.w, Volumes: s.w, Network: s.w, Health: s.w, Visits: world.Visits{World: s.w}, Store: world.Store{World: s.w}, Clock: s.w,
		Vault: world.Vault{World: s.w}, Secrets: world.Deliverer{World: s.w}, Nonce: s.nonce,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pool: netip.MustParsePrefix(cmp.Or(s.pool, "10.9.0.0/16")),
		StateDir: "/state", RemoveUnknown: s.removeUnknown,
	})
	if err != nil {
		panic(err)
	}
	s.loop = loop
}

// nonce numbers the versions of secrets.
func (s *scenario) nonce() string {
	s.nonces++
	return fmt.Sprintf("%016x", s.nonces)
}

// run plays a few requests with damage and crashes among them, then lets the
// world come to rest without any.
func (s *scenario) run() {
	defer func() { s.stop() }()
	for range 2 + s.rng.IntN(3) {
		if s.rng.IntN(2) == 0 {
			s.start(1 + s.rng.IntN(60))
		}
		s.request()
		s.grow()
		s.live(time.Duration(s.rng.IntN(20000))*time.Millisecond, 250*time.Millisecond)
		if s.rng.IntN(3) == 0 {
			s.w.Damage(s.rng.IntN(6), s.rng.IntN(100))
			s.live(time.Duration(s.rng.IntN(3000))*time.Millisecond, 250*time.Millisecond)
		}
	}
	s.start(0)
	s.live(3*time.Minute, time.Second)
}

// grow lets a replica write over its image.
func (s *scenario) grow() {
	if all := s.w.Running(); len(all) > 0 && s.disk.IntN(2) == 0 {
		s.w.WriteLayer(all[s.disk.IntN(len(all))], s.disk.Int64N(3*mib))
	}
}

// live lets time pass with the loop running, at most step between two looks,
// and starts an agent that died again.
func (s *scenario) live(d, step time.Duration) {
	end := s.w.Now().Add(d)
	for busy := 0; s.w.Now().Before(end); {
		wait := s.loop.Step(s.loop.ctx)
		if s.w.Dead() {
			s.start(0)
			continue
		}
		if wait == 0 {
			if busy++; busy > 2000 {
				s.gaps = append(s.gaps, "the loop never comes to rest")
				return
			}
			continue
		}
		busy = 0
		if !s.loop.failed {
			s.w.CheckRoutes()
		}
		if !s.quiet && s.rng.IntN(8) == 0 {
			s.w.Traffic(time.Duration(s.rng.IntN(8000)) * time.Millisecond)
		}
		s.w.Advance(min(wait, step))
	}
	for range 50 { // what happened at the last instant is answered too
		if s.loop.Step(s.loop.ctx) > 0 && !s.w.Dead() {
			return
		}
		if s.w.Dead() {
			s.start(0)
		}
	}
}

// request does one random thing that a user may ask for.
func (s *scenario) request() {
	if s.rng.IntN(4) == 0 {
		s.secret()
		return
	}
	project := []string{"a", "b"}[s.rng.IntN(2)]
	_, known := s.loop.state.project(project)
	if s.loop.present(project) == nil && known && s.disk.IntN(4) == 0 {
		s.answer(func(ctx context.Context) {
			_, _ = s.loop.Change(ctx, project, spec.ChangeRequest{Kind: "down", Forget: true})
		})
		return
	}
	if s.loop.present(project) == nil || s.rng.IntN(2) == 0 {
		s.deploy(s.manifest(project))
		return
	}
	var names []string
	for _, svc := range s.loop.present(project).Project.Services {
		names = append(names, svc.Name)
	}
	name := names[s.rng.IntN(len(names))]
	change := []spec.ChangeRequest{
		{Kind: "scale", Replicas: map[string]int{name: s.rng.IntN(4)}},
		{Kind: "restart", Services: []string{name}},
		{Kind: "stop", Services: []string{name}},
		{Kind: "start"},
		{Kind: "rollback"},
		{Kind: "down"},
		{Kind: "pause"},
		{Kind: "resume"},
		{Kind: "promote"},
	}[s.rng.IntN(9)]
	change.TakeOver = s.rng.IntN(2) == 0
	change.Forget = change.Kind == "down" && s.disk.IntN(2) == 0
	s.answer(func(ctx context.Context) { _, _ = s.loop.Change(ctx, project, change) })
}

func (s *scenario) deploy(p spec.Project) {
	op := s.loop.ops.begin(p.Name, "deploy", "", spec.OperationPulling)
	values := map[string]spec.SecretValue{"own": s.value()}
	s.answer(func(ctx context.Context) {
		_ = s.loop.deploy(ctx, op, spec.DeployRequest{Turn: spec.Turn{TakeOver: true}, Project: p, Secrets: values, RemoveOrphans: s.rng.IntN(2) == 0})
	})
}

// answer runs f, which asks the loop for something, and is the loop's goroutine
// meanwhile.
func (s *scenario) answer(f func(context.Context)) {
	done := make(chan struct{})
	go func() { defer close(done); f(s.loop.ctx) }()
	for {
		select {
		case r := <-s.loop.requests:
			r()
		case <-done:
			return
		}
	}
}

func (s *scenario) manifest(name string) spec.Project {
	p := spec.Project{Name: name, Networks: []spec.Network{{Name: "default"}}}
	choice := []string{"fast", "slow", "stubborn", "broken", "crashing", "mortal", "sickly", "fast", "slow"}
	for i := range 1 + s.rng.IntN(3) {
		svc := spec.Service{
			Name: fmt.Sprintf("s%d", i), Replicas: s.rng.IntN(4), Update: spec.UpdatePolicy{Order: spec.StartFirst},
			Restart: spec.RestartPolicy{Mode: []spec.RestartMode{spec.RestartAlways, spec.RestartUnlessStopped, spec.RestartOnFailure}[s.rng.IntN(3)]},
			Drain:   spec.Duration(time.Duration(s.rng.IntN(3)) * 2 * time.Second),
			Container: spec.Container{
				Image: choice[s.rng.IntN(len(choice))], StopGrace: spec.Duration(time.Duration(s.rng.IntN(3)) * time.Second),
				Networks: []spec.Attachment{{Name: "default"}}, Environment: []string{fmt.Sprintf("V=%d", s.rng.IntN(3))},
				Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
			},
		}
		s.policy(&svc)
		svc.Hold = spec.Duration([]time.Duration{0, 2 * time.Second, 10 * time.Second}[s.extra.IntN(3)])
		svc.KeepWarm = spec.Duration([]time.Duration{0, 0, 0, 5 * time.Second, 30 * time.Second, time.Minute}[s.extra.IntN(6)])
		if s.disk.IntN(3) == 0 {
			svc.Disk = mib
		}
		svc.Limits.Pids = int64([]int{0, 0, 100, 200, 201}[s.rng.IntN(5)])
		if s.rng.IntN(3) == 0 && !s.inStep {
			svc.Update.Order = spec.StopFirst
			svc.Container.Mounts = []spec.Mount{{Type: spec.MountVolume, Source: "v", Target: "/data"}}
		}
		if i > 0 && s.rng.IntN(3) == 0 {
			svc.DependsOn = []spec.Dependency{{Service: "s0", Condition: spec.DependHealthy}}
		}
		s.secrets(&p, &svc)
		svc.Ports = []spec.Port{{Published: uint16(8000 + 10*i + len(name+p.Name)), Target: 80, Protocol: spec.TCP}}
		if name == "b" {
			svc.Ports[0].Published += 1000
		}
		if s.rng.IntN(4) == 0 && len(svc.Container.Networks) > 0 { // both projects may be in it
			if len(p.Networks) == 1 {
				p.Networks = append(p.Networks, spec.Network{Name: "proxy", Shared: "proxy"})
			}
			svc.Container.Networks = append(svc.Container.Networks, spec.Attachment{Name: "proxy"})
		}
		if i > 0 && (s.inStep || s.rng.IntN(3) == 0) {
			s.otherNetwork(&svc, p.Services[0])
		}
		p.Services = append(p.Services, svc)
	}
	if err := p.Validate(); err != nil {
		panic(err)
	}
	return p
}

// secrets gives the service one of the host, one of the project, or none.
func (s *scenario) secrets(p *spec.Project, svc *spec.Service) {
	if s.rng.IntN(3) > 0 {
		return
	}
	d := spec.SecretDeclaration{Name: "key", Store: "key", Optional: s.rng.IntN(2) == 0}
	if s.rng.IntN(3) == 0 {
		d = spec.SecretDeclaration{Name: "own", Store: "own", Origin: spec.OriginManifest}
	}
	if _, ok := p.Secret(d.Name); !ok {
		p.Secrets = append(p.Secrets, d)
		slices.SortFunc(p.Secrets, func(a, b spec.SecretDeclaration) int { return strings.Compare(a.Name, b.Name) })
	}
	svc.Container.Secrets = []spec.Secret{{Name: d.Name, Target: spec.SecretDir + "/" + d.Name, Mode: 0o400}}
	svc.OnSecretChange = []spec.OnSecretChange{spec.SecretRestart, spec.SecretRestart, spec.SecretNone, "SIGHUP"}[s.rng.IntN(4)]
}

// value is one of a few, so that a secret is also set to what it is.
func (s *scenario) value() spec.SecretValue {
	return spec.NewSecretValue(fmt.Appendf(nil, "v%d", s.rng.IntN(3)))
}

// secret asks for a change of the host's secret.
func (s *scenario) secret() {
	id := spec.SecretID{Name: "key"}
	choice, value := s.rng.IntN(5), s.value()
	s.answer(func(ctx context.Context) {
		switch choice {
		case 0:
			_ = s.loop.RemoveSecret(ctx, id, spec.Actor{})
		case 1:
			_, _ = s.loop.RollbackSecret(ctx, id, 0, spec.Actor{})
		default:
			_, _ = s.loop.SetSecrets(ctx, spec.SecretRequest{Values: map[string]spec.SecretValue{id.Name: value}})
		}
	})
}

// otherNetwork takes the service out of its network, into that of first, of the
// host or none.
func (s *scenario) otherNetwork(svc *spec.Service, first spec.Service) {
	svc.Ports, svc.Container.Networks = nil, nil
	svc.Container.Network = []spec.NetworkMode{spec.NetworkHost, spec.NetworkNone, spec.NetworkService, spec.NetworkService}[s.rng.IntN(4)]
	if svc.Container.Network != spec.NetworkService {
		return
	}
	svc.Container.Joins, svc.Replicas = first.Name, min(svc.Replicas, first.Replicas)
	svc.DependsOn = []spec.Dependency{{Service: first.Name, Condition: spec.DependStarted}}
	if !s.inStep && s.rng.IntN(2) == 0 {
		svc.Update.Order, svc.Canary = spec.StopFirst, nil
	}
}

// policy gives the service a random way to update.
func (s *scenario) policy(svc *spec.Service) {
	svc.Update.Parallelism = s.rng.IntN(3)
	svc.Update.Delay = spec.Duration(time.Duration(s.rng.IntN(2)) * 3 * time.Second)
	svc.Update.Monitor = spec.Duration(time.Duration(s.rng.IntN(2)) * 2 * time.Second)
	svc.Update.MaxFailureRatio = []float64{0, 0, 0.4, 1}[s.rng.IntN(4)]
	svc.Update.OnFailure = []spec.FailureAction{spec.FailureRollback, spec.FailureRollback, spec.FailurePause, spec.FailureContinue}[s.rng.IntN(4)]
	svc.Update.Deadline = spec.Duration(time.Minute)
	svc.Unhealthy = []spec.OnUnhealthy{spec.UnhealthyReplace, spec.UnhealthyRestart, spec.UnhealthyKeep}[s.rng.IntN(3)]
	svc.Ramp = spec.Duration(time.Duration(s.rng.IntN(2)) * 5 * time.Second)
	if s.rng.IntN(4) == 0 {
		svc.Canary = &spec.Canary{Replicas: 1 + s.rng.IntN(2), For: spec.Duration(time.Duration(s.rng.IntN(2)) * 20 * time.Second), Weight: s.rng.IntN(2) * 20}
	}
}

// waits reports whether the project's rollout stands still by its own policy.
func (s *scenario) waits(p plan.Project) bool {
	trial := func(svc spec.Service) bool { return svc.Canary != nil && svc.Canary.For == 0 }
	goesOn := func(svc spec.Service) bool { return svc.Update.OnFailure == spec.FailureContinue }
	return p.Record.Paused != "" || slices.ContainsFunc(p.Release.Project.Services, func(svc spec.Service) bool { return trial(svc) || goesOn(svc) })
}

// verdict says what is wrong with the world at the end; empty = nothing.
func (s *scenario) verdict() string {
	bad := append(slices.Clone(s.w.Violations), s.gaps...)
	var wanted []string
	routed := map[string]bool{}
	desired := s.loop.state.desired()
	for _, p := range desired.Projects {
		for _, svc := range p.Release.Project.Services {
			gen := p.Release.Generation(svc.Name)
			routed[p.Record.Name+"/"+svc.Name] = len(svc.Container.Networks) > 0
			spare := 0 // stands in for a sick one
			if slices.Contains([]string{"sickly", "mortal", "broken", "crashing"}, svc.Container.Image) {
				spare = 1
			}
			for n := 1; n <= svc.Replicas+spare; n++ {
				wanted = append(wanted, spec.ReplicaID(p.Record.Name, svc.Name, gen, n))
			}
		}
		// With nothing to go back to, a broken release may stay as it is.
		if p.Rolling() && p.Good != nil && !s.waits(p) {
			bad = append(bad, fmt.Sprintf("project %s neither converged nor went back", p.Record.Name))
		}
	}
	bad = append(bad, s.unforgotten()...)
	bad = append(bad, s.undelivered(desired)...)
	bad = append(bad, s.stillHeld(desired)...)
	bad = append(bad, s.outgrown(desired)...)
	status, _ := s.loop.Status(context.Background())
	for _, p := range status.Projects {
		for _, svc := range p.Services {
			if routed[p.Name+"/"+svc.Name] && svc.Waiting == "" && !svc.Stopped && s.w.Served(p.Name, svc.Name) < min(svc.Wanted, svc.Ready) {
				bad = append(bad, fmt.Sprintf("%s/%s: want the routes to lead to %d replicas", p.Name, svc.Name, svc.Ready))
			}
		}
	}
	if !s.rolling() {
		for _, l := range s.w.Leftovers(wanted) {
			bad = append(bad, "left over: "+l)
		}
		for _, a := range s.loop.receipts.all {
			bad = append(bad, fmt.Sprintf("the receipt of release %d of %s (%s) doesn't settle", a.Release, a.Project, a.Outcome))
		}
	}
	return strings.Join(bad, "\n")
}

// stillHeld lists the services whose connections wait though nothing has happened
// to them for longer than they may; some fall ill now and then by themselves.
func (s *scenario) stillHeld(d plan.Desired) []string {
	var bad []string
	for _, p := range d.Projects {
		for _, svc := range p.Release.Project.Services {
			name := p.Record.Name + "/" + svc.Name
			if slices.Contains(s.w.Held(), name) && !slices.Contains([]string{"sickly", "mortal"}, svc.Container.Image) {
				bad = append(bad, "connections to "+name+" still wait")
			}
		}
	}
	return bad
}

// outgrown lists the replicas that run over the limit of their service, the one
// that stands in for others too, though others can be ready in their stead and
// had the time for it.
func (s *scenario) outgrown(d plan.Desired) []string {
	var bad []string
	items, _ := s.w.Use(context.Background())
	for _, p := range d.Projects {
		for _, svc := range p.Release.Project.Services {
			if svc.Disk == 0 || p.Rolling() || !slices.Contains([]string{"fast", "slow", "stubborn"}, svc.Container.Image) {
				continue
			}
			gen := p.Release.Generation(svc.Name)
			for n := 1; n <= svc.Replicas+1; n++ {
				id := spec.ReplicaID(p.Record.Name, svc.Name, gen, n)
				i := slices.IndexFunc(items, func(i spec.DiskItem) bool { return i.Name == id && i.Bytes > svc.Disk })
				if i >= 0 && s.w.Alive(id) {
					bad = append(bad, fmt.Sprintf("%s has %d bytes in its writable layer, and the limit is %d", id, items[i].Bytes, svc.Disk))
				}
			}
		}
	}
	return bad
}

// unforgotten lists the projects that are still to be forgotten, and of those that
// the store doesn't know what is kept of them.
func (s *scenario) unforgotten() []string {
	var bad []string
	loaded, _ := world.Store{World: s.w}.Load()
	known := map[string]bool{}
	for _, p := range loaded.Projects {
		known[p.Name] = true
		if p.Forget {
			bad = append(bad, fmt.Sprintf("project %s isn't forgotten", p.Name))
		}
	}
	for _, project := range []string{"a", "b"} {
		receipts, _ := world.Store{World: s.w}.Receipts(project)
		if !known[project] && len(loaded.Releases[project])+len(receipts) > 0 {
			bad = append(bad, fmt.Sprintf("of project %s, which the store doesn't know, there are %d releases and %d receipts", project, len(loaded.Releases[project]), len(receipts)))
		}
	}
	return bad
}

// undelivered lists the replicas that lack the secrets of their release, and the
// projects that have yet to get the current versions.
func (s *scenario) undelivered(d plan.Desired) []string {
	var bad []string
	for _, p := range d.Projects {
		for _, svc := range p.Release.Project.Services {
			want := p.Release.SecretsFingerprint(svc)
			for n := 1; n <= svc.Replicas; n++ {
				id := spec.ReplicaID(p.Record.Name, svc.Name, p.Release.Generation(svc.Name), n)
				if got := s.w.Delivered(id); s.w.Alive(id) && got != want {
					bad = append(bad, fmt.Sprintf("%s has the secrets %q, want %q", id, got, want))
				}
			}
		}
		for name, pin := range s.loop.state.currentPins(p.Release.Project) {
			if p.Record.Secrets[name] != pin && p.Record.Paused == "" && !s.loop.ops.busy(p.Record.Name) {
				bad = append(bad, fmt.Sprintf("project %s has yet to get version %d of %s", p.Record.Name, pin.Version, name))
			}
		}
	}
	return bad
}

func (s *scenario) rolling() bool {
	return slices.ContainsFunc(s.loop.state.desired().Projects, func(p plan.Project) bool { return p.Rolling() })
}

func TestWorldStore(t *testing.T) {
	w := world.New(images)
	storetest.Run(t,
		func(*testing.T) storetest.Store { w = world.New(images); return world.Store{World: w} },
		func(_ *testing.T, s storetest.Store) storetest.Store { return s })
}
