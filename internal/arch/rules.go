// Package arch holds the shape of the program: which package may import which,
// who may use a heavy library, what a pure package must not do, and that every
// package says what it is for. Its test checks the checkout; docs/architecture.md
// explains the rooms.
package arch

// rules are what Check checks. Paths are folders of the module, "a" standing
// for a and everything under it.
type rules struct {
	module string

	// sees lists the own packages that a folder may import beside itself. The
	// longest matching folder decides; a folder that no entry covers may
	// import nothing of ours, so a new one has to be placed here first.
	sees map[string][]string

	// only lists the folders that may import a library. A library that isn't
	// listed may be imported by nobody: a new dependency is a decision.
	only map[string][]string

	// stdOnly folders import no library at all.
	stdOnly []string

	// testSees is what test files, and the folders in supports, may import on
	// top, of ours and of libraries.
	testSees []string
	testOnly []string

	// supports are folders that exist for tests and examples: their libraries
	// are free. Nothing else may import them.
	supports []string

	// pure folders decide and render; see pure.go for what they must not do.
	pure []string
}

const everything = "*"

// project is dunnage's shape, as docs/architecture.md explains it.
var project = rules{
	module: "dunnage",
	sees: map[string][]string{
		"spec":              {},
		"api":               {"internal/fault", "spec"},
		"manifest":          {"spec"},
		"metrics":           {"spec"},
		"orchestrator":      {"internal/fault", "internal/keyed", "spec"},
		"orchestrator/plan": {"spec"},
		"engine":            {"engine/logwriter", "internal/fault", "internal/keyed", "internal/regular", "internal/reread", "spec"},
		"engine/logwriter":  {}, // one runs for every container
		"netns":             {"internal/fault", "internal/keyed", "internal/regular", "internal/reread", "spec"},
		"netns/rules":       {"spec"},
		"netns/walk":        {"netns/rules", "spec"},
		"store":             {"internal/fault", "internal/regular", "spec"},
		"secrets":           {"internal/fault", "internal/keyed", "internal/regular", "spec"},
		"cmd/dunnage":       {"api", "engine", "internal/build", "internal/fault", "internal/regular", "manifest", "metrics", "netns", "orchestrator", "secrets", "spec", "store"},
		"cmd/dunnage-log":   {"engine/logwriter"},
		"cmd/dunnage-init":  {"engine/inside"},
		"internal":          {},
		"internal/reread":   {"internal/regular"},
		"internal/testenv":  {everything},
		"examples":          {"examples/internal"},
		"test":              {everything},
	},
	only: map[string][]string{
		// One importer each: what they cost and how they break stays in one room.
		"github.com/compose-spec/compose-go": {"manifest"},
		"github.com/containerd":              {"engine"},
		"github.com/coreos/go-iptables":      {"netns"},
		"github.com/coreos/go-systemd":       {"cmd/dunnage"},
		"github.com/prometheus":              {"metrics"},
		"github.com/urfave/cli":              {"cmd/dunnage"},
		"github.com/vishvananda":             {"netns"},
		"go.etcd.io/bbolt":                   {"store"},
		"go.yaml.in/yaml":                    {"manifest"},

		// What containerd's client and its images speak in.
		"github.com/distribution/reference": {"engine"},
		"github.com/docker/cli":             {"engine"}, // credential files
		"github.com/moby/profiles":          {"engine"}, // seccomp
		"github.com/moby/sys":               {"engine"},
		"github.com/opencontainers":         {"engine"},
		"google.golang.org/grpc":            {"engine"},

		"github.com/rogpeppe/go-internal": {"cmd/dunnage"}, // diff of `net rules`
		"github.com/sirupsen/logrus":      {"manifest"},    // compose-go warns through it
		"github.com/vbauerster/mpb":       {"cmd/dunnage"},
		"golang.org/x/crypto":             {"secrets"}, // Argon2id
		"golang.org/x/term":               {"cmd/dunnage"},

		// Thin and everywhere: system calls and errgroup.
		"golang.org/x/sync": {"cmd", "engine", "netns", "secrets", "store", "api", "manifest"},
		"golang.org/x/sys":  {"cmd", "engine", "netns", "secrets", "store", "api", "manifest"},
	},
	stdOnly: []string{"engine/logwriter", "orchestrator", "spec", "internal"},
	testSees: []string{
		"internal/testenv",
		"orchestrator", // an adapter's test holds it against the interfaces that it must satisfy
		"test",
	},
	testOnly: []string{
		"github.com/google/go-cmp",
		"github.com/google/go-containerregistry",
		"github.com/rogpeppe/go-internal",
		"go.uber.org/goleak",
		"pgregory.net/rapid",
		"golang.org/x/sync",
		"golang.org/x/sys",
	},
	supports: []string{"api/apitest", "examples", "internal/testenv", "orchestrator/world", "store/storetest", "test"},
	pure:     []string{"netns/rules", "netns/walk", "orchestrator/plan", "spec"},
}
