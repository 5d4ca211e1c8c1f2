package manifest

import (
	"fmt"
	"strings"

	"dunnage/spec"

	"go.yaml.in/yaml/v4"
)

// Encode writes a project as a Compose file with every default filled in:
// loading it again gives the same project. Orphans aren't in it.
func Encode(p spec.Project) ([]byte, error) {
	out := composeFile{Name: p.Name, Services: ordered[composeService]{}}
	for _, s := range p.Services {
		if s.Orphan {
			continue
		}
		service := encodeService(p, s)
		encodeSecrets(&service, s)
		service.Configs = encodeFiles(&out, s.Name, s.Container.Files)
		out.Services = append(out.Services, pair[composeService]{s.Name, service})
	}
	for _, n := range p.Networks {
		out.Networks = append(out.Networks, pair[composeNetwork]{n.Name, composeNetwork{n.Shared, n.Internal, n.IPv6}})
	}
	for _, v := range p.Volumes {
		out.Volumes = append(out.Volumes, pair[composeVolume]{v.Name, composeVolume{v.ID, v.External}})
	}
	encodeDeclarations(&out, p)
	var n yaml.Node
	if err := n.Encode(out); err != nil {
		return nil, fmt.Errorf("encode project %s: %w", p.Name, err)
	}
	escape(&n)
	return encodeNode(&n)
}

// escape doubles the dollar signs of values, so that nothing is interpolated.
func escape(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys aren't interpolated
		}
		if c.Kind == yaml.ScalarNode && strings.Contains(c.Value, "$") {
			c.Value = strings.ReplaceAll(c.Value, "$", "$$")
		}
		escape(c)
	}
}

// pair and ordered are a mapping in a given order.
type pair[V any] struct {
	key   string
	value V
}

type ordered[V any] []pair[V]

// MarshalYAML keeps the order.
func (o ordered[V]) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, p := range o {
		var v yaml.Node
		if err := v.Encode(p.value); err != nil {
			return nil, err
		}
		k := &yaml.Node{}
		k.SetString(p.key)
		n.Content = append(n.Content, k, &v)
	}
	return n, nil
}

// What follows mirrors the keys of a Compose file that Encode needs.

type composeFile struct {
	Name     string                  `yaml:"name"`
	Services ordered[composeService] `yaml:"services"`
	Networks ordered[composeNetwork] `yaml:"networks,omitempty"`
	Volumes  ordered[composeVolume]  `yaml:"volumes,omitempty"`
	Configs  ordered[composeConfig]  `yaml:"configs,omitempty"`
	Secrets  ordered[composeSecret]  `yaml:"secrets,omitempty"`
}

type composeNetwork struct {
	Name       string `yaml:"name,omitempty"`
	Internal   bool   `yaml:"internal,omitempty"`
	EnableIPv6 bool   `yaml:"enable_ipv6,omitempty"`
}

type composeVolume struct {
	Name     string `yaml:"name"`
	External bool   `yaml:"external,omitempty"`
}

type composeService struct {
	Image         string                     `yaml:"image"`
	ContainerName string                     `yaml:"container_name,omitempty"`
	Entrypoint    *[]string                  `yaml:"entrypoint,omitempty,flow"`
	Command       *[]string                  `yaml:"command,omitempty,flow"`
	Environment   ordered[string]            `yaml:"environment,omitempty"`
	Hostname      string                     `yaml:"hostname,omitempty"`
	User          string                     `yaml:"user,omitempty"`
	WorkingDir    string                     `yaml:"working_dir,omitempty"`
	CapAdd        []string                   `yaml:"cap_add,omitempty,flow"`
	CapDrop       []string                   `yaml:"cap_drop,omitempty,flow"`
	ReadOnly      bool                       `yaml:"read_only,omitempty"`
	Volumes       []composeMount             `yaml:"volumes,omitempty"`
	Tmpfs         []string                   `yaml:"tmpfs,omitempty"`
	ShmSize       int64                      `yaml:"shm_size,omitempty"`
	Ulimits       ordered[composeUlimit]     `yaml:"ulimits,omitempty"`
	Labels        map[string]string          `yaml:"labels,omitempty"`
	StopSignal    string                     `yaml:"stop_signal,omitempty"`
	StopGrace     string                     `yaml:"stop_grace_period"`
	NetworkMode   string                     `yaml:"network_mode,omitempty"`
	Networks      ordered[composeAttachment] `yaml:"networks,omitempty"`
	Configs       []composeFileMount         `yaml:"configs,omitempty"`
	Secrets       []composeFileMount         `yaml:"secrets,omitempty"`
	Logging       *composeLogging            `yaml:"logging,omitempty"`
	Limits        composeLimits              `yaml:",inline"`
	Confinement   composeConfinement         `yaml:",inline"`
	Resolution    composeResolution          `yaml:",inline"`
	Expose        []string                   `yaml:"expose,omitempty,flow"`
	Ports         []composePort              `yaml:"ports,omitempty"`
	Pull          string                     `yaml:"pull_policy,omitempty"`
	Platform      string                     `yaml:"platform,omitempty"`
	Restart       string                     `yaml:"restart,omitempty"`
	Deploy        composeDeploy              `yaml:"deploy"`
	DependsOn     ordered[composeDependency] `yaml:"depends_on,omitempty"`
	Healthcheck   *composeHealthcheck        `yaml:"healthcheck,omitempty"`
	Dunnage       composeExtension           `yaml:"x-dunnage"`
}

type composeMount struct {
	Type     string         `yaml:"type"`
	Source   string         `yaml:"source,omitempty"`
	Target   string         `yaml:"target"`
	ReadOnly bool           `yaml:"read_only,omitempty"`
	Bind     *composeBind   `yaml:"bind,omitempty"`
	Volume   *composeNoCopy `yaml:"volume,omitempty"`
}

type composeBind struct {
	Propagation    string `yaml:"propagation,omitempty"`
	CreateHostPath bool   `yaml:"create_host_path"`
}

type composeNoCopy struct {
	NoCopy bool `yaml:"nocopy"`
}

type composeUlimit struct {
	Soft int64 `yaml:"soft"`
	Hard int64 `yaml:"hard"`
}

type composeAttachment struct {
	Aliases []string `yaml:"aliases,omitempty,flow"`
}

type composePort struct {
	Target    uint16 `yaml:"target"`
	Published string `yaml:"published,omitempty"`
	HostIP    string `yaml:"host_ip,omitempty"`
	Protocol  string `yaml:"protocol"`
}

type composeDeploy struct {
	Replicas      int                   `yaml:"replicas"`
	RestartPolicy *composeRestartPolicy `yaml:"restart_policy,omitempty"`
	Update        composeUpdate         `yaml:"update_config"`
	Rollback      *composeUpdate        `yaml:"rollback_config,omitempty"`
}

type composeRestartPolicy struct {
	Condition   string `yaml:"condition"`
	Delay       string `yaml:"delay,omitempty"`
	MaxAttempts int    `yaml:"max_attempts,omitempty"`
	Window      string `yaml:"window,omitempty"`
}

type composeUpdate struct {
	Order           spec.UpdateOrder   `yaml:"order"`
	Parallelism     int                `yaml:"parallelism,omitempty"`
	Delay           string             `yaml:"delay,omitempty"`
	Monitor         string             `yaml:"monitor,omitempty"`
	MaxFailureRatio float64            `yaml:"max_failure_ratio,omitempty"`
	FailureAction   spec.FailureAction `yaml:"failure_action,omitempty"`
}

type composeDependency struct {
	Condition spec.Condition `yaml:"condition"`
	Required  bool           `yaml:"required"`
}

type composeHealthcheck struct {
	Disable       bool     `yaml:"disable,omitempty"`
	Test          []string `yaml:"test,omitempty,flow"`
	Interval      string   `yaml:"interval,omitempty"`
	Timeout       string   `yaml:"timeout,omitempty"`
	StartPeriod   string   `yaml:"start_period,omitempty"`
	StartInterval string   `yaml:"start_interval,omitempty"`
	Retries       int      `yaml:"retries,omitempty"`
}

type composeExtension struct {
	Probe            *composeProbe    `yaml:"probe,omitempty"`
	Accept           *composeAccept   `yaml:"accept,omitempty"`
	Drain            string           `yaml:"drain"`
	Hold             string           `yaml:"hold,omitempty"`
	KeepWarm         string           `yaml:"keep_warm,omitempty"`
	Disk             int64            `yaml:"disk,omitempty"`
	Ramp             string           `yaml:"ramp,omitempty"`
	Sticky           string           `yaml:"sticky,omitempty"`
	Allow            []string         `yaml:"allow,omitempty"`
	OnUnhealthy      spec.OnUnhealthy `yaml:"on_unhealthy,omitempty"`
	Canary           *composeCanary   `yaml:"canary,omitempty"`
	ProgressDeadline string           `yaml:"progress_deadline,omitempty"`
	MaxFailed        int              `yaml:"max_failed,omitempty"`
	Build            string           `yaml:"build,omitempty"`
	SecretEnv        ordered[string]  `yaml:"secret_env,omitempty"`
	OnSecretChange   string           `yaml:"on_secret_change,omitempty"`
}

type composeAccept struct {
	Command []string `yaml:"command,flow"`
	Timeout string   `yaml:"timeout"`
}

type composeCanary struct {
	Replicas int    `yaml:"replicas"`
	For      string `yaml:"for,omitempty"`
	Weight   int    `yaml:"weight,omitempty"`
}

type composeProbe struct {
	HTTP        *composeTarget `yaml:"http,omitempty"`
	TCP         *composeTarget `yaml:"tcp,omitempty"`
	Interval    string         `yaml:"interval"`
	Timeout     string         `yaml:"timeout"`
	StartPeriod string         `yaml:"start_period"`
	Retries     int            `yaml:"retries"`
}

type composeTarget struct {
	Port uint16 `yaml:"port"`
	Path string `yaml:"path,omitempty"`
}
