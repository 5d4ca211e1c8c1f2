package manifest

import (
	"fmt"
	"strings"

	"dunnage/spec"
)

func encodeService(p spec.Project, s spec.Service) composeService {
	box := s.Container
	out := composeService{
		Image: box.Image, ContainerName: box.ContainerName,
		Entrypoint: pointer(box.Entrypoint), Command: pointer(box.Command),
		Hostname: box.Hostname, User: box.User, WorkingDir: box.WorkingDir,
		CapAdd: box.CapAdd, CapDrop: box.CapDrop, ReadOnly: box.ReadOnly,
		ShmSize: box.ShmSize, Labels: box.Labels,
		StopSignal: box.StopSignal, StopGrace: box.StopGrace.String(),
		Pull: string(s.Pull), Platform: box.Platform, NetworkMode: encodeNetworkMode(box),
		Limits: encodeLimits(s.Limits), Logging: encodeLogging(s.Logging),
		Confinement: encodeConfinement(box), Resolution: encodeResolution(box),
		Dunnage: encodeExtension(s),
	}
	out.Deploy.Replicas = s.Replicas
	encodeRollout(&out, s)
	for _, kv := range box.Environment {
		k, v, _ := strings.Cut(kv, "=")
		out.Environment = append(out.Environment, pair[string]{k, v})
	}
	for _, m := range box.Mounts {
		encodeMount(&out, p, m)
	}
	for _, u := range box.Ulimits {
		out.Ulimits = append(out.Ulimits, pair[composeUlimit]{u.Name, composeUlimit{u.Soft, u.Hard}})
	}
	for _, n := range box.Networks {
		out.Networks = append(out.Networks, pair[composeAttachment]{n.Name, composeAttachment{n.Aliases}})
	}
	for _, e := range box.Expose {
		out.Expose = append(out.Expose, fmt.Sprintf("%d/%s", e.Port, e.Protocol))
	}
	for _, port := range s.Ports {
		out.Ports = append(out.Ports, encodePort(port))
	}
	for _, d := range s.DependsOn {
		out.DependsOn = append(out.DependsOn, pair[composeDependency]{d.Service, composeDependency{d.Condition, !d.Optional}})
	}
	encodeProbes(&out, box.Probes)
	return out
}

// pointer keeps the difference between nil, the image's, and empty, cleared.
func pointer(s []string) *[]string {
	if s == nil {
		return nil
	}
	return &s
}

func encodePort(p spec.Port) composePort {
	out := composePort{Target: p.Target, Protocol: string(p.Protocol)}
	if p.HostIP.IsValid() {
		out.HostIP = p.HostIP.String()
	}
	switch {
	case p.Last != 0:
		out.Published = fmt.Sprintf("%d-%d", p.Published, p.Last)
	case p.Published != 0:
		out.Published = fmt.Sprint(p.Published)
	}
	return out
}

func encodeMount(out *composeService, p spec.Project, m spec.Mount) {
	if m.Type == spec.MountTmpfs {
		out.Tmpfs = append(out.Tmpfs, encodeTmpfs(m))
		return
	}
	c := composeMount{Type: string(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Type {
	case spec.MountBind:
		c.Bind = &composeBind{CreateHostPath: m.CreateHost, Propagation: strings.Join(m.Options, ",")}
	case spec.MountVolume:
		for _, v := range p.Volumes {
			if v.ID == m.Source {
				c.Source = v.Name
			}
		}
		if m.NoCopy {
			c.Volume = &composeNoCopy{true}
		}
	}
	out.Volumes = append(out.Volumes, c)
}

// encodeTmpfs writes the short form: the long one has no room for options.
func encodeTmpfs(m spec.Mount) string {
	var opts []string
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	if m.Size > 0 {
		opts = append(opts, fmt.Sprintf("size=%d", m.Size))
	}
	if m.Mode > 0 {
		opts = append(opts, fmt.Sprintf("mode=%o", m.Mode))
	}
	if opts = append(opts, m.Options...); len(opts) == 0 {
		return m.Target
	}
	return m.Target + ":" + strings.Join(opts, ",")
}
