package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dunnage/spec"
	"dunnage/test/lab"
	"dunnage/test/load"
)

// faulty is an agent that dies where it is told to; the other programs beside
// it are the ordinary ones.
var faulty = sync.OnceValues(func() (string, error) {
	tools, err := built()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(tools, "faults")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "dunnage")
	cmd := exec.Command("go", "build", "-tags", "faults", "-o", program, "dunnage/cmd/dunnage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with fault points: %w: %s", err, out)
	}
	for _, helper := range []string{"dunnage-log", "dunnage-init"} {
		if err := os.Link(filepath.Join(tools, helper), filepath.Join(dir, helper)); err != nil {
			return "", err
		}
	}
	return program, nil
})

// truth is what is served, looked up in the processes themselves.
type truth struct {
	Release  string // RELEASE in the environment of each web replica
	Image    string // its image's tag
	Replicas int
	Token    string // in the store, and in the file of each web replica
	Side     string // the signalled service's token; empty = it isn't deployed
}

// driver runs an agent that dies at fault points.
type driver struct {
	*host
	dir   string // of the fault package: at, passed, died
	want  map[string]inventory
	now   truth  // what is served, since the last change
	other string // the value of the secret of that name

	fresh  int // number of the newest value of a secret
	killed int
	slow   time.Duration // the longest recovery
	slowAt string        // where it was killed before
}

const sideManifest = `name: side
services:
  side:
    image: example.org/keeper:root
    command: [keep, /run/secrets/other, "8000"]
    ports: ["8053:8053/udp"]
    stop_grace_period: 5s
    secrets: [other]
    volumes: ["data:/data"]
    configs: [{source: motd, target: /etc/motd}]
    x-dunnage: {drain: 100ms, on_secret_change: signal:HUP, probe: {http: {port: 8000, path: /health}, interval: 200ms}}
volumes: {data: {}}
configs: {motd: {content: "be kind"}}
secrets: {other: {external: true}}
`

func webManifest(release string, replicas int) string {
	tag := map[string]string{"1": "root", "2": "app"}[release]
	return fmt.Sprintf(`name: keeper
services:
  web:
    image: example.org/keeper:%s
    environment: {RELEASE: "%s"}
    deploy: {replicas: %d}
    ports: ["8080:8000"]
    stop_grace_period: 5s
    secrets: [{source: token, uid: "0", mode: 0444}]
    x-dunnage: {drain: 1s, probe: {http: {port: 8000, path: /health}, interval: 200ms, retries: 2}}
secrets: {token: {external: true}}
`, tag, release, replicas)
}

// foreignRules are put on the host before anything else, and must be there
// unchanged at the end.
var foreignRules = []string{
	"iptables -A FORWARD -s 203.0.113.9 -p tcp --dport 25 -j DROP",
	"iptables -A INPUT -s 203.0.113.0/24 -m comment --comment 'not ours' -j DROP",
	"iptables -t nat -A PREROUTING -p tcp --dport 9999 -j DNAT --to-destination 203.0.113.7:80",
	"ip6tables -A FORWARD -s 2001:db8::9 -j DROP",
	"iptables-legacy -A INPUT -s 203.0.113.77 -j DROP",
	"nft add table inet foreign",
	"nft add chain inet foreign input { type filter hook input priority 10 ; }",
	"nft add rule inet foreign input ip saddr 203.0.113.4 drop",
}

func newDriver(t *testing.T, env ...string) *driver {
	t.Helper()
	h := newBareHost(t)
	program, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{host: h, dir: t.TempDir(), want: map[string]inventory{}}
	h.agent.Program = program
	h.agent.Env = append(env, "DUNNAGE_FAULT="+d.dir)
	for _, line := range foreignRules {
		if _, err := lab.Output(t.Context(), h.lab.OnHost("sh", "-c", strings.NewReplacer("{", "'{'", "}", "'}'", ";", "';'").Replace(line))...); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	h.loadKeeper()
	d.mustSet("token", "value-0")
	d.mustSet("other", "value-0")
	h.mustDeploy(webManifest("1", 2))
	d.now, d.other = truth{Release: "1", Image: "root", Replicas: 2, Token: "value-0"}, "value-0"
	one := d.now
	up := one
	up.Side = d.other
	more := one
	more.Replicas = 3
	for _, shape := range []truth{one, up, more, one} { // what each looks like without a kill
		d.bring(shape)
		d.settled(shape)
	}
	return d
}

// at says where the agent is to die; empty = nowhere.
func (d *driver) at(point string) {
	d.t.Helper()
	_ = os.Remove(filepath.Join(d.dir, "died"))
	if point == "" {
		d.disarm()
		return
	}
	path := filepath.Join(d.dir, "at")
	if err := os.WriteFile(path+".new", []byte(point), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
}

// disarm takes the order back, and leaves what is known of a death.
func (d *driver) disarm() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "at")); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
}

// died reports where the agent died by its own hand; empty = it lives, or was
// killed otherwise.
func (d *driver) died() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "died"))
	if d.lab.Pid("agent") != 0 {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// passed lists the points that f passes, in order.
func (d *driver) passed(f func()) []string {
	d.t.Helper()
	path := filepath.Join(d.dir, "passed")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		d.t.Fatal(err)
	}
	f()
	b, err := os.ReadFile(path)
	if err := errors.Join(err, os.Remove(path)); err != nil {
		d.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// truth is what the host serves, or an error while it isn't settled.
func (d *driver) truth() (truth, error) {
	var now truth
	c := d.client()
	defer c.Close()
	status, err := c.Status(d.t.Context())
	if err != nil {
		return now, err
	}
	if len(status.Problems) > 0 {
		return now, errors.New(strings.Join(status.Problems, ", "))
	}
	for _, p := range status.Projects {
		if p.Rolling || p.Busy != "" || p.Paused != "" {
			return now, fmt.Errorf("project %s: rolling %v, busy %q, paused %q", p.Name, p.Rolling, p.Busy, p.Paused)
		}
		for _, s := range p.Services {
			if s.Waiting != "" || s.Ready != s.Wanted || len(s.Replicas) != s.Wanted {
				return now, fmt.Errorf("service %s has %d ready of %d, %d in all: %s", s.Name, s.Ready, s.Wanted, len(s.Replicas), s.Waiting)
			}
			for _, r := range s.Replicas {
				if r.State != spec.StateReady {
					return now, fmt.Errorf("%s is %s", r.Replica, r.State)
				}
				if err := d.add(&now, p.Name, r); err != nil {
					return now, err
				}
			}
		}
	}
	for name, value := range map[string]string{"token": now.Token, "other": now.Side} {
		if value == "" {
			continue
		}
		same, err := c.CompareSecret(d.t.Context(), spec.SecretID{Name: name}, spec.NewSecretValue([]byte(value)), spec.Actor{})
		if err != nil || !same {
			return now, fmt.Errorf("secret %s isn't what is delivered, %q: %w", name, value, errors.Join(err, errors.New("compared")))
		}
	}
	return now, nil
}

// add looks into a replica's process.
func (d *driver) add(now *truth, project string, r spec.ReplicaStatus) error {
	read := func(path string) (string, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.Pid, path))
		return string(b), err
	}
	if project == "side" {
		var err error
		now.Side, err = read("root/run/secrets/other")
		return err
	}
	env, err := read("environ")
	if err != nil {
		return err
	}
	token, err := read("root/run/secrets/token")
	if err != nil {
		return err
	}
	_, release, _ := strings.Cut(env, "RELEASE=")
	release, _, _ = strings.Cut(release, "\x00")
	_, tag, _ := strings.Cut(r.Image, "keeper:")
	tag, _, _ = strings.Cut(tag, "@")
	one := truth{Release: release, Image: tag, Replicas: now.Replicas, Token: token, Side: now.Side}
	if now.Replicas > 0 && one != *now {
		return fmt.Errorf("replicas differ: %+v and %+v", one, *now)
	}
	*now = one
	now.Replicas++
	return nil
}

// converges waits for one of the truths.
func (d *driver) converges(limit time.Duration, any ...truth) (now truth, err error) {
	err = lab.Await(d.t.Context(), limit, func() (err error) {
		if d.died() != "" { // what it does by itself came past the point before the order was taken back
			d.at("")
			d.killed++
			if err := d.agent.Launch(); err != nil {
				return err
			}
		}
		if now, err = d.truth(); err != nil {
			return err
		}
		if !slices.Contains(any, now) {
			return fmt.Errorf("it serves %+v, and should %+v", now, any)
		}
		return nil
	})
	return now, err
}

// settled waits for the truth, and for the inventory that belongs to it.
func (d *driver) settled(want truth) {
	d.t.Helper()
	if _, err := d.converges(30*time.Second, want); err != nil {
		d.t.Fatal(err)
	}
	d.whole(want)
}

// whole compares with what there is without a kill, which is what is found
// when it is asked for the first time, once it has come to rest.
func (d *driver) whole(now truth) {
	d.t.Helper()
	shape := fmt.Sprintf("%d replicas, side %v", now.Replicas, now.Side != "")
	if want, known := d.want[shape]; known {
		if err := d.lasting(20*time.Second, want); err != nil {
			d.t.Errorf("left over with %s: %v", shape, err)
		}
		return
	}
	if d.killed > 0 {
		d.t.Fatalf("nobody has seen %s without a kill", shape)
	}
	d.want[shape] = d.rest()
}

// scenario is a change of the truth; exit code 0 of what makes it is the
// acknowledgement.
type scenario struct {
	name string
	old  []func(truth) truth // what it begins with, one after the other
	new  func(old truth) truth
	do   func(new truth) result
}

func (d *driver) scenarios() []scenario {
	type change = func(truth) truth
	release := func(r string) change {
		return func(t truth) truth { t.Release, t.Image = r, map[string]string{"1": "root", "2": "app"}[r]; return t }
	}
	replicas := func(n int) change { return func(t truth) truth { t.Replicas = n; return t } }
	up := func(t truth) truth { t.Side = d.other; return t }
	down := func(t truth) truth { t.Side = ""; return t }
	same := func(t truth) truth { return t }
	verb := func(args ...string) func(truth) result { return func(truth) result { return d.run(nil, args...) } }
	return []scenario{
		{"redeploy", []change{release("1")}, release("2"), d.deployWeb},
		{"rollback", []change{release("1"), release("2")}, release("1"), verb("rollback", "-p", "keeper")},
		{"scale up", []change{replicas(2), down}, replicas(3), verb("scale", "-p", "keeper", "web=3")},
		{"scale down", []change{replicas(3)}, replicas(2), verb("scale", "-p", "keeper", "web=2")},
		{"secret set, with a restart", nil, func(t truth) truth { t.Token = d.next(); return t },
			func(t truth) result { return d.set("token", t.Token) }},
		{"deploy", []change{down}, up, verb("deploy", "-f", d.file("side.yaml", sideManifest))},
		{"secret set, with a signal", []change{up}, func(t truth) truth { t.Side = d.next(); return t },
			func(t truth) result { return d.set("other", t.Side) }},
		{"rotate-key", nil, same, verb("secret", "rotate-key")},
		{"rotate-key --full", nil, same, verb("secret", "rotate-key", "--full")},
		{"down", []change{up}, down, verb("down", "-p", "side", "--volumes")},
		{"start", nil, same, func(truth) result { return d.again() }},
		{"gc", []change{down, replicas(3), replicas(2)}, same, func(truth) result { return d.collectAll() }},
		{"boot after a power cut", nil, same, func(truth) result { return d.doubt() }},
	}
}

// first is a start on a host that has nothing of an agent's network yet but
// the replicas, as after its rules and settings were lost. Nobody is served
// then, so it isn't done under load.
func (d *driver) first() scenario {
	return scenario{"first start", nil, func(t truth) truth { return t }, func(truth) result {
		return d.again(
			"iptables-save | grep -v DUNNAGE- | iptables-restore", "ip6tables-save | grep -v DUNNAGE- | ip6tables-restore",
			"ip route flush proto 213", "ip route flush table local proto 213", "ip -6 route flush table local proto 213",
			"sysctl -qw net.ipv4.ip_forward=0", "rm -f "+d.lab.Path("run/settings.json"))
	}}
}

// again kills the agent, does something to the host and starts it again.
func (d *driver) again(meanwhile ...string) result {
	if d.died() != "" {
		return result{} // it was quicker, and is started again by who waits for that
	}
	killAgent(d.host)
	for _, line := range meanwhile {
		if out, err := lab.Output(d.t.Context(), d.lab.OnHost("sh", "-c", line)...); err != nil {
			return result{stderr: out + err.Error(), code: 1}
		}
	}
	if err := d.agent.Launch(); err != nil && d.died() == "" {
		return result{stderr: err.Error(), code: 1}
	}
	return result{}
}

func (d *driver) deployWeb(t truth) result {
	return d.run(nil, "deploy", "-f", d.file("web.yaml", webManifest(t.Release, t.Replicas)))
}

// load brings the images, which are there or were collected.
func (d *driver) load() result {
	return d.run(nil, "image", "load", filepath.Join(d.host.dir, "keeper.tar"))
}

// loadAgain brings images back that were collected rightly, after so many releases
// that hadn't them.
func (d *driver) loadAgain() {
	d.t.Helper()
	images, err := d.ctrList("images", "ls", "-q")
	if err == nil && len(images) < 2 {
		if r := d.load(); r.code != 0 {
			err = fmt.Errorf("%+v", r)
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// collectAll collects what a gc may, and brings back what scenarios go on with.
func (d *driver) collectAll() result {
	if r := d.run(nil, "gc", "--all"); r.code != 0 {
		return r
	}
	return d.load()
}

// doubt makes the next agent find the machine restarted soon after images came,
// which are then in doubt. The replicas, which run on, have lost the agent's
// notes of their starts.
func (d *driver) doubt() result {
	if r := d.load(); r.code != 0 {
		return r
	}
	d.fresh++
	return d.again(fmt.Sprintf("echo boot-%d > %s", d.fresh, filepath.Join(d.dir, "boot")))
}

// next is a value that no secret had before.
func (d *driver) next() string {
	d.fresh++
	return fmt.Sprintf("value-%d", d.fresh)
}

// bring makes the truth what a scenario begins with, with nobody killed.
func (d *driver) bring(want truth) {
	d.t.Helper()
	d.at("")
	now, err := d.converges(30*time.Second, d.now)
	if err != nil {
		d.t.Fatal(err)
	}
	if now == want {
		return
	}
	if now.Side == "" && want.Side != "" {
		d.run(nil, "deploy", "-f", d.file("side.yaml", sideManifest))
	}
	if now.Side != "" && want.Side == "" {
		d.run(nil, "down", "-p", "side", "--volumes")
	}
	if now.Release != want.Release || now.Replicas != want.Replicas {
		d.deployWeb(want)
	}
	d.now = want
	if _, err := d.converges(30*time.Second, want); err != nil {
		d.t.Fatal(err)
	}
}

// begin brings a scenario's beginning about, and says what it leads to.
func (d *driver) begin(s scenario) (old, new truth) {
	d.t.Helper()
	for _, change := range s.old {
		d.bring(change(d.now))
	}
	return d.now, s.new(d.now)
}

// undisturbed does the scenario without a kill, and returns the points that it
// passes.
func (d *driver) undisturbed(s scenario) (points []string) {
	d.t.Helper()
	_, new := d.begin(s)
	points = d.passed(func() {
		if r := s.do(new); r.code != 0 {
			d.t.Fatalf("%s: %+v", s.name, r)
		}
		d.arrived(new)
	})
	d.whole(new)
	return points
}

// arrived waits for one of the truths, and takes note of it.
func (d *driver) arrived(any ...truth) {
	d.t.Helper()
	now, err := d.converges(30*time.Second, any...)
	if err != nil {
		d.t.Fatalf("it serves neither the old nor the new: %v", err)
	}
	d.now = now
	if now.Side != "" {
		d.other = now.Side
	}
}

// chain does the scenario and dies at the points one after the other, in as
// few rounds as it takes: whoever is killed in the midst of a redeploy and
// comes back has the rest of it before it. It returns the points that it didn't
// come past again: those of what is done once after each start of the agent.
func (d *driver) chain(s scenario, points []string) (missed []string) {
	d.t.Helper()
	for misses := 0; len(points) > 0; {
		n := d.round(s, points)
		points = points[n:]
		if n > 0 {
			misses = 0
		} else if misses++; misses == 3 {
			missed = append(missed, points[0])
			points, misses = points[1:], 0
		}
	}
	return missed
}

// round does the scenario once, dies at as many of the points as it comes past
// in their order, and checks what has come of it.
func (d *driver) round(s scenario, points []string) (met int) {
	d.t.Helper()
	old, new := d.begin(s)
	d.at(points[0])
	done := make(chan result, 1)
	go func() { done <- s.do(new) }()
	may := []truth{old, new}
	var resumed time.Time
	finished := false
	var failed error
	err := lab.Await(d.t.Context(), 2*time.Minute, func() error {
		if at := d.died(); at != "" {
			if met == len(points) || at != strings.Split(points[met], "#")[0] {
				d.t.Fatalf("it died at %q, waiting for %v", at, points[met:])
			}
			d.killed++
			if met++; met < len(points) {
				d.at(points[met])
			} else {
				d.at("")
			}
			resumed = time.Now()
			if err := d.agent.Launch(); err != nil && d.died() == "" {
				d.t.Fatal(err)
			}
			return errors.New("just resumed")
		}
		if !finished {
			select {
			case r := <-done:
				finished = true
				if r.code == 0 {
					may = []truth{new}
				} else {
					failed = fmt.Errorf("%s: %+v", s.name, r)
				}
			default:
				return errors.New("the command is still at work")
			}
		}
		if failed != nil && met == 0 {
			return failed // unless the agent has just died
		}
		now, err := d.truth()
		if err == nil && !slices.Contains(may, now) {
			err = fmt.Errorf("it serves %+v, and should %+v", now, may)
		}
		return err
	})
	if err != nil {
		d.t.Fatalf("%s, after %d kills up to %q: %v", s.name, met, points[max(met-1, 0)], err)
	}
	if took := time.Since(resumed); met > 0 && took > d.slow {
		d.slow, d.slowAt = took, s.name+": "+points[met-1]
	}
	d.disarm()
	d.arrived(may...)
	d.must("gc") // takes the leases of what was cut short, and nothing that is needed
	d.loadAgain()
	d.whole(d.now)
	d.audit()
	return met
}

// TestKilledAtEveryPoint kills the agent before and after every effect that it
// has on the world, under load. A slice passes each point once, in the first
// scenario that comes to it; a soak the first and the last pass of every point of
// every scenario, with a look at what is left over after each.
func TestKilledAtEveryPoint(t *testing.T) {
	d := newDriver(t)
	foreign := d.foreign()
	var seen []string
	missed := map[string]string{} // point -> the scenario that came to it once
	requests := 0
	play := func(t *testing.T, s scenario) {
		passed := d.undisturbed(s)
		var points []string
		for _, p := range passed {
			if !slices.Contains(seen, p) {
				seen, points = append(seen, p), append(points, p)
			}
		}
		before := d.killed
		if soakFile != "" {
			d.each(s, passed)
		} else if len(points) > 0 {
			for _, p := range points {
				delete(missed, p)
			}
			again := d.chain(s, points)
			seen = slices.DeleteFunc(seen, func(p string) bool { return slices.Contains(again, p) }) // for a later scenario
			for _, p := range again {
				missed[p] = s.name
			}
		}
		t.Logf("%d points, %d of them new, %d kills", len(passed), len(points), d.killed-before)
	}
	for _, s := range append(d.scenarios(), d.first()) {
		t.Run(s.name, func(t *testing.T) {
			host := *d.host
			host.t = t
			d.host = &host
			if s.name == d.first().name {
				play(t, s)
			} else {
				requests += d.under(8080, load.Config{Rate: 300}, func() { play(t, s) }).Asked
			}
			if now := d.foreign(); now != foreign {
				t.Errorf("foreign rules were\n%s\nand are\n%s", foreign, now)
			}
		})
	}
	d.host.t = t
	for p, name := range missed {
		t.Errorf("%s came past %q only once, and so did every scenario after it", name, p)
	}
	allMet(t, seen)
	d.must("secret", "audit", "--verify")
	row(t, "agent killed at every fault point, before and after, under 300 requests/s",
		"0 failed, 0 leftovers, recovered ≤ 2 s",
		fmt.Sprintf("%d kills at %d points, %d requests, slowest recovery %.1f s (%s)", d.killed, len(seen), requests, d.slow.Seconds(), d.slowAt),
		!t.Failed() && d.killed > 0 && d.slow <= time.Duration(rounds(10, 2))*time.Second)
}

// each kills at the first pass of every point and at the last, one kill a round.
// Those in between are the same for other replicas.
func (d *driver) each(s scenario, passed []string) {
	d.t.Helper()
	times := map[string]int{}
	var points []string
	for _, p := range passed {
		if times[p]++; times[p] == 1 {
			points = append(points, p)
		}
	}
	for _, p := range points {
		d.round(s, []string{p + "#1"})
		if n := times[p]; n > 1 {
			d.round(s, []string{fmt.Sprintf("%s#%d", p, n)})
		}
	}
}
