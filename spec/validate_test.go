package spec_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

func good() spec.Project {
	return spec.Project{
		Name: "shop", Networks: []spec.Network{{Name: "default"}}, Volumes: []spec.Volume{{Name: "data", ID: "shop_data"}},
		Services: []spec.Service{
			{Name: "db", Replicas: 1, Update: spec.UpdatePolicy{Order: spec.StopFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartAlways}, Container: box()},
			{Name: "web", Replicas: 2, Update: spec.UpdatePolicy{Order: spec.StartFirst}, Restart: spec.RestartPolicy{Mode: spec.RestartOnFailure}, Container: box(),
				Ports: []spec.Port{{Published: 80, Target: 80, Protocol: spec.TCP}}, DependsOn: []spec.Dependency{{Service: "db", Condition: spec.DependHealthy}}},
		},
	}
}

func box() spec.Container {
	return spec.Container{
		Image: "example.org/web:1", Networks: []spec.Attachment{{Name: "default"}}, Environment: []string{"A=b"},
		Mounts: []spec.Mount{{Type: spec.MountVolume, Source: "shop_data", Target: "/data"}}, Probes: []spec.Probe{{Kind: spec.ProbeRunning}},
	}
}

// alone takes a service out of its networks.
func alone(s *spec.Service, mode spec.NetworkMode) *spec.Service {
	s.Ports, s.Container.Networks, s.Container.Network = nil, nil, mode
	return s
}

// secrets gives the project two secrets, a and b, and its last service both. It
// returns the service's use of a.
func secrets(p *spec.Project) *spec.Secret {
	p.Secrets = []spec.SecretDeclaration{{Name: "a", Store: "a"}, {Name: "b", Store: "b"}}
	p.Services[1].Container.Secrets = []spec.Secret{{Name: "a", Target: "/run/secrets/a"}, {Name: "b", Target: "/run/secrets/b"}}
	return &p.Services[1].Container.Secrets[0]
}

func config(p *spec.Project, target, content string) {
	f := spec.File{Target: target, Content: []byte(content), Template: len(spec.TemplateNames([]byte(content))) > 0}
	p.Services[1].Container.Files = append(p.Services[1].Container.Files, f)
}

func TestValidate(t *testing.T) {
	joined := good()
	web := alone(&joined.Services[1], spec.NetworkService)
	web.Container.Joins, web.Replicas = "db", 1
	if err := joined.Validate(); err != nil {
		t.Fatal(err)
	}
	fine := good()
	fine.Services[0].Container.Probes = []spec.Probe{{Kind: spec.ProbeImage}, {Kind: spec.ProbeRunning, Fallback: true}, {Kind: spec.ProbeAccept, Command: []string{"true"}, Timeout: 1}}
	sealed := good()
	secrets(&sealed)
	config(&sealed, "/etc/x", `{{ secret "b" }}`)
	live := good()
	secrets(&live).Mode = 0o440
	live.Services[1].OnSecretChange = "SIGRTMIN+3"
	if err := errors.Join(good().Validate(), fine.Validate(), sealed.Validate(), live.Validate()); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		edit func(*spec.Project)
		want string
	}{
		"project name leads elsewhere": {func(p *spec.Project) { p.Name = "../x" }, "project name"},
		"project name with NUL":        {func(p *spec.Project) { p.Name = "a\x00b" }, "project name"},
		"project name of two lines":    {func(p *spec.Project) { p.Name = "a\nb" }, "project name"},
		"endless project name":         {func(p *spec.Project) { p.Name = strings.Repeat("x", 5000) }, "project name"},
		"no services":                  {func(p *spec.Project) { p.Services = nil }, "no service"},
		"service name leads elsewhere": {func(p *spec.Project) { p.Services[1].Name = ".." }, "service name"},
		"service twice":                {func(p *spec.Project) { p.Services[1].Name = "db" }, "sorted"},
		"names too long together":      {func(p *spec.Project) { p.Services[1].Name = strings.Repeat("y", 58) }, "at most 60"},
		"negative replicas":            {func(p *spec.Project) { p.Services[1].Replicas = -1 }, "-1 replicas"},
		"endless replicas":             {func(p *spec.Project) { p.Services[1].Replicas = 1 << 40 }, "replicas"},
		"no order":                     {func(p *spec.Project) { p.Services[1].Update.Order = "" }, "order"},
		"unknown restart":              {func(p *spec.Project) { p.Services[1].Restart.Mode = "maybe" }, "restart"},
		"rule in the protocol":         {func(p *spec.Project) { p.Services[1].Ports[0].Protocol = "tcp -j ACCEPT" }, "can't be published"},
		"port zero":                    {func(p *spec.Project) { p.Services[1].Ports[0].Target = 0 }, "can't be published"},
		"too many ports":               {func(p *spec.Project) { p.Services[1].Ports = slices.Repeat(p.Services[1].Ports, 5000) }, "5000 ports"},
		"depends on nobody":            {func(p *spec.Project) { p.Services[1].DependsOn[0].Service = "nobody" }, "nobody"},
		"depends on itself":            {func(p *spec.Project) { p.Services[1].DependsOn[0].Service = "web" }, "circle"},
		"depends in a circle":          {func(p *spec.Project) { p.Services[0].DependsOn = []spec.Dependency{{Service: "web"}} }, "circle"},
		"unknown network":              {func(p *spec.Project) { p.Services[1].Container.Networks[0].Name = "other" }, `network "other"`},
		"no network":                   {func(p *spec.Project) { p.Services[1].Container.Networks = nil }, "no network"},
		"unknown network mode":         {func(p *spec.Project) { p.Services[1].Container.Network = "bridge" }, "network mode"},
		"networks beside a mode":       {func(p *spec.Project) { p.Services[1].Ports, p.Services[1].Container.Network = nil, spec.NetworkHost }, "has no networks"},
		"ports beside a mode":          {func(p *spec.Project) { alone(&p.Services[1], spec.NetworkNone).Ports = good().Services[1].Ports }, "publishes nothing"},
		"joins without the mode":       {func(p *spec.Project) { p.Services[1].Container.Joins = "db" }, "without network_mode"},
		"joins nobody":                 {func(p *spec.Project) { alone(&p.Services[1], spec.NetworkService).Container.Joins = "nobody" }, "nobody"},
		"joins itself":                 {func(p *spec.Project) { alone(&p.Services[1], spec.NetworkService).Container.Joins = "web" }, "joins another one's itself"},
		"joins one of too few":         {func(p *spec.Project) { alone(&p.Services[1], spec.NetworkService).Container.Joins = "db" }, "scale both"},
		"no image":                     {func(p *spec.Project) { p.Services[1].Container.Image = "" }, "no image"},
		"NUL in the environment":       {func(p *spec.Project) { p.Services[1].Container.Environment = []string{"A=x\x00y"} }, "NUL"},
		"environment without a name":   {func(p *spec.Project) { p.Services[1].Container.Environment = []string{"=y"} }, "environment"},
		"relative mount":               {func(p *spec.Project) { p.Services[1].Container.Mounts[0].Target = "data" }, "absolute"},
		"volume leads elsewhere":       {func(p *spec.Project) { p.Services[1].Container.Mounts[0].Source = "../../etc" }, "volume"},
		"volume with a long name":      {func(p *spec.Project) { p.Volumes[0].ID = strings.Repeat("x", 256) }, "volume name"},
		"volume declared elsewhere":    {func(p *spec.Project) { p.Volumes[0].ID = "../../etc" }, "volume name"},
		"no probe":                     {func(p *spec.Project) { p.Services[1].Container.Probes = nil }, "no probe"},
		"probe without a port":         {func(p *spec.Project) { p.Services[1].Container.Probes = []spec.Probe{{Kind: spec.ProbeTCP}} }, "probe"},
		"secret that isn't declared":   {func(p *spec.Project) { secrets(p).Name = "other" }, "isn't declared"},
		"secret at /":                  {func(p *spec.Project) { secrets(p).Target = "/" }, "a directory stands there"},
		"relative secret":              {func(p *spec.Project) { secrets(p).Target = "key" }, "absolute path of a file"},
		"secret leads elsewhere":       {func(p *spec.Project) { secrets(p).Target = "/run/secrets/../../etc/passwd" }, "absolute path of a file"},
		"secret instead of all":        {func(p *spec.Project) { secrets(p).Target = "/run/secrets" }, "a directory stands there"},
		"secret at /run":               {func(p *spec.Project) { secrets(p).Target = "/run" }, "a directory stands there"},
		"secret in /proc":              {func(p *spec.Project) { secrets(p).Target = "/proc/x" }, "the kernel's files"},
		"secret at dunnage's own":      {func(p *spec.Project) { secrets(p).Target = "/.dunnage-env" }, "dunnage's own"},
		"secret with a long name":      {func(p *spec.Project) { secrets(p).Target = "/run/secrets/" + strings.Repeat("x", 256) }, "more than 255 bytes"},
		"config at dunnage's own":      {func(p *spec.Project) { config(p, "/.dunnage-init", "") }, "dunnage's own"},
		"secret over a mount":          {func(p *spec.Project) { secrets(p).Target = "/data" }, "already"},
		"secret over a secret":         {func(p *spec.Project) { secrets(p).Target = "/run/secrets/b" }, "already"},
		"secret below a secret":        {func(p *spec.Project) { secrets(p).Target = "/run/secrets/b/a" }, "already"},
		"mount among secrets":          {func(p *spec.Project) { secrets(p); p.Services[1].Container.Mounts[0].Target = "/run/secrets/x" }, "already"},
		"mount instead of secrets":     {func(p *spec.Project) { secrets(p); p.Services[1].Container.Mounts[0].Target = "/run/secrets/" }, "already"},
		"config over a secret":         {func(p *spec.Project) { secrets(p); config(p, "/run/secrets/a", "") }, "already"},
		"config over a config":         {func(p *spec.Project) { config(p, "/etc/x", ""); config(p, "/etc/x", "") }, "already"},
		"config leads elsewhere":       {func(p *spec.Project) { config(p, "/etc/../x", "") }, "absolute path of a file"},
		"template of others' secrets":  {func(p *spec.Project) { secrets(p); config(p, "/etc/x", `{{ secret "c" }}`) }, `"c" isn't one of the service's`},
		"optional mount": {func(p *spec.Project) {
			secrets(p).Target = "/etc/key"
			p.Secrets[0].Optional = true
		}, "may be absent"},
		"set-id secret":                {func(p *spec.Project) { secrets(p).Mode = 0o4400 }, "permission bits"},
		"variable of two lines":        {func(p *spec.Project) { secrets(p).Env = "A\nB" }, "can't be a variable"},
		"secret over a variable":       {func(p *spec.Project) { secrets(p).Env = "A" }, "has a value already"},
		"secret name leads elsewhere":  {func(p *spec.Project) { secrets(p); p.Secrets[0].Name = "../a" }, "secret name"},
		"stored name leads elsewhere":  {func(p *spec.Project) { secrets(p); p.Secrets[0].Store = "../a" }, "secret name"},
		"secret twice":                 {func(p *spec.Project) { secrets(p); p.Secrets[1].Name = "a" }, "sorted"},
		"unknown origin":               {func(p *spec.Project) { secrets(p); p.Secrets[0].Origin = "air" }, "origin"},
		"the manifest's by other name": {func(p *spec.Project) { secrets(p); p.Secrets[0].Origin, p.Secrets[0].Store = spec.OriginManifest, "x" }, "no other name"},
		"live variable": {func(p *spec.Project) {
			secrets(p).Env = "B"
			p.Services[1].OnSecretChange = spec.SecretNone
		}, "environment of a running process"},
		"live file of its own": {func(p *spec.Project) {
			secrets(p).Target = "/etc/key"
			p.Services[1].OnSecretChange = "SIGHUP"
		}, "mount of its own"},
		"live template": {func(p *spec.Project) {
			secrets(p)
			config(p, "/etc/x", `{{ secret "a" }}`)
			p.Services[1].OnSecretChange = "SIGHUP"
		}, "mount of its own"},
		"signal that isn't": {func(p *spec.Project) { p.Services[1].OnSecretChange = "HUP; reboot" }, "on_secret_change"},
		"image probe back in time": {func(p *spec.Project) {
			p.Services[1].Container.Probes = []spec.Probe{{Kind: spec.ProbeImage, Interval: -1}}
		}, "probe"},
		"accept without a command": {func(p *spec.Project) {
			p.Services[1].Container.Probes = []spec.Probe{{Kind: spec.ProbeAccept, Timeout: 1}}
		}, "probe"},
		"unknown pull policy":    {func(p *spec.Project) { p.Services[1].Pull = "daily" }, "pull policy"},
		"unknown on_unhealthy":   {func(p *spec.Project) { p.Services[1].Unhealthy = "kill" }, "on_unhealthy"},
		"negative restart delay": {func(p *spec.Project) { p.Services[1].Restart.Delay = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good()
			tc.edit(&p)
			err := p.Validate()
			if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d characters", len(err.Error()))
			}
		})
	}
}
