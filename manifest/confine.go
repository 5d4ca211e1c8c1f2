package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	kindPID         = kind{shape: shapeText, check: checkPID}
	kindIPC         = kind{shape: shapeText, check: checkIPC}
	kindUserNS      = kind{shape: shapeText, check: checkUserNS}
	kindCgroupNS    = kind{shape: shapeText, check: checkCgroupNS}
	kindDevice      = kind{shape: shapeText | shapeMap, check: checkDevice}
	kindAccess      = kind{shape: shapeText, check: checkAccess}
	kindDeviceRule  = kind{shape: shapeText, check: checkDeviceRule}
	kindSecurityOpt = kind{shape: shapeText, check: checkSecurityOpt}
	kindSysctl      = kind{shape: shapeText, check: checkSysctlItem}
	kindGroup       = kind{shape: textOrInt, check: checkGroup, what: "a group, such as 1000 or video"}
	kindOOMScore    = kind{shape: textOrInt, check: within("the score", -1000, 1000), what: "a whole number"}
)

func checkPID(v string) error {
	if v == "" || v == "host" {
		return nil
	}
	return refuse("Write host, or remove the key", "%q isn't supported: a container has a PID namespace of its own, or the host's", clip(v))
}

func checkIPC(v string) error {
	if slices.Contains([]string{"", "host", "private", "shareable"}, v) {
		return nil
	}
	return refuse("Write host, or remove the key; a volume or a socket is shared more safely", "%q isn't supported: a container has an IPC namespace of its own, or the host's", clip(v))
}

func checkUserNS(v string) error {
	if v == "" || v == "host" {
		return nil
	}
	return refuse("Remove the key", "%q isn't supported: containers share the host's user namespace", clip(v))
}

func checkCgroupNS(v string) error {
	if v == "private" {
		return nil
	}
	return refuse("Remove the key", "%q isn't supported: every container has a cgroup namespace of its own", clip(v))
}

func checkDevice(v string) error {
	parts := strings.Split(v, ":")
	switch {
	case !path.IsAbs(parts[0]) && strings.Contains(v, "="):
		return refuse("Name the device nodes", "%q is a CDI name, which needs hooks that dunnage doesn't run", clip(v))
	case len(parts) > 3:
		return refuse("Use the long form with source: and target:", "%q has too many colons for SOURCE[:TARGET[:PERMISSIONS]]", clip(v))
	}
	if err := checkHostPath(parts[0]); err != nil {
		return err
	}
	if len(parts) > 1 && parts[1] != "" {
		if err := checkAbsolute(parts[1]); err != nil {
			return err
		}
	}
	if len(parts) > 2 {
		return checkAccess(parts[2])
	}
	return nil
}

func checkAccess(v string) error {
	if v == "" || strings.Trim(v, "rwm") != "" || len(v) > 3 {
		return refuse("Write rwm, or some of these letters", "%q aren't permissions of a device", clip(v))
	}
	return nil
}

var deviceRule = regexp.MustCompile(`^[abc] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`)

func checkDeviceRule(v string) error {
	if !deviceRule.MatchString(v) {
		return refuse("Write it as c 1:3 rwm", "%q isn't a rule of the devices cgroup", clip(v))
	}
	return nil
}

func checkSecurityOpt(v string) error {
	name, value := cutOption(v)
	switch name {
	case "no-new-privileges":
		if value != "" {
			return checkBool(value)
		}
		return nil
	case "seccomp", "apparmor":
		if value == "" {
			return refuse("Write "+name+":unconfined or "+name+":PROFILE", "%q names no profile", clip(v))
		}
		return nil
	case "label":
		return nil
	case "systempaths":
		return refuse("Remove it; privileged: true unmasks them with everything else", "the masked paths of /proc and /sys stay masked")
	}
	return refuse("Use no-new-privileges, seccomp, apparmor or label", "%q isn't a security option", clip(v))
}

// cutOption splits at the first colon or equals sign, as Docker does.
func cutOption(v string) (name, value string) {
	if i := strings.IndexAny(v, ":="); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

func checkSysctlItem(v string) error {
	name, _, ok := strings.Cut(v, "=")
	if !ok {
		return refuse("Write NAME=VALUE", "%q has no value", clip(v))
	}
	return checkSysctl(name)
}

// ipcSysctls belong to the IPC namespace, ipc_namespaces(7).
var ipcSysctls = regexp.MustCompile(`^(kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+)$`)

var netSysctls = regexp.MustCompile(`^net\.[A-Za-z0-9_./-]+$`)

func checkSysctl(name string) error {
	if ipcSysctls.MatchString(name) || netSysctls.MatchString(name) && !strings.Contains(name, "..") {
		return nil
	}
	return refuse("Set it on the host, for example in /etc/sysctl.d", "%q isn't one of the container's namespaces, so it would change the host", clip(name))
}

func checkGroup(v string) error {
	if !isAccount(v) {
		return refuse("Write a number or a name", "%q isn't a group", clip(v))
	}
	return nil
}

// confinement fills in what a container may do beyond its own namespaces.
func (c *converter) confinement(name string, in types.ServiceConfig, box *spec.Container) {
	box.HostPID, box.HostIPC = in.Pid == "host", in.Ipc == "host"
	box.Privileged = in.Privileged
	box.Devices = c.devices(name, in.Devices)
	box.DeviceRules = slices.Compact(slices.Sorted(slices.Values(in.DeviceCgroupRules)))
	box.GroupAdd = slices.Compact(slices.Sorted(slices.Values(in.GroupAdd)))
	box.Init = in.Init != nil && *in.Init
	box.TTY, box.StdinOpen = in.Tty, in.StdinOpen
	box.OOMScoreAdj = int(in.OomScoreAdj)
	box.DomainName = in.DomainName
	if len(in.Annotations) > 0 {
		box.Annotations = in.Annotations
	}
	if len(in.Sysctls) > 0 {
		box.Sysctls = in.Sysctls
		c.checkSysctls(name, *box)
	}
	for _, v := range in.SecurityOpt {
		c.securityOpt(name, v, box)
	}
}

func (c *converter) devices(name string, in []types.DeviceMapping) []spec.Device {
	var out []spec.Device
	for _, d := range in {
		out = append(out, spec.Device{
			Source: path.Clean(d.Source), Target: path.Clean(cmp.Or(d.Target, d.Source)), Access: cmp.Or(d.Permissions, "rwm"),
		})
	}
	slices.SortFunc(out, func(a, b spec.Device) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Access, b.Access))
	})
	out = slices.Compact(out)
	for i := range out {
		if i > 0 && out[i-1].Target == out[i].Target {
			c.failAt(refuse("Remove one of them", "two devices stand at %s", out[i].Target), "services", name, "devices")
		}
	}
	return out
}

// checkSysctls refuses what would change the host, because the container
// shares that namespace with it.
func (c *converter) checkSysctls(name string, box spec.Container) {
	for _, k := range sorted(box.Sysctls) {
		shared := ""
		switch {
		case strings.HasPrefix(k, "net.") && box.Network == spec.NetworkHost:
			shared = "network_mode: host would make it the host's"
		case strings.HasPrefix(k, "net.") && box.Network == spec.NetworkService:
			shared = "the network belongs to service " + box.Joins
		case !strings.HasPrefix(k, "net.") && box.HostIPC:
			shared = "ipc: host would make it the host's"
		default:
			continue
		}
		at, at2 := c.whereItem(func(v string, _ *tree) bool { n, _, _ := strings.Cut(v, "="); return n == k }, "services", name, "sysctls")
		c.fail(at, at2, refuse("Set it there, and remove it here", "%s", shared))
	}
}

func (c *converter) securityOpt(name, v string, box *spec.Container) {
	switch opt, value := cutOption(v); opt {
	case "no-new-privileges":
		box.NewPrivs = value != "" && !bools[strings.ToLower(value)]
	case "apparmor":
		box.AppArmor = value
	case "label":
		c.report.note("%s: security_opt %s has no effect: dunnage doesn't set SELinux labels", name, v)
	case "seccomp":
		profile, p := c.seccomp(value)
		if p != nil {
			at, path := c.whereItem(func(w string, _ *tree) bool { return w == v }, "services", name, "security_opt")
			c.fail(at, path, p)
		}
		box.Seccomp = profile
	}
}

// seccomp is a profile as it is kept in a Container: its JSON without blanks,
// so that reformatting the file changes nothing.
func (c *converter) seccomp(value string) (string, *problem) {
	if value == "unconfined" {
		return value, nil
	}
	if value == "builtin" {
		return "", nil
	}
	data := []byte(value)
	if !strings.HasPrefix(value, "{") {
		file := absolute(c.dir, value)
		var err error
		if data, err = readRegular(file); err != nil {
			return "", refuse("Name a profile's file, or write seccomp:unconfined", "the seccomp profile can't be read: %s", err)
		}
	}
	var known struct {
		DefaultAction string `json:"defaultAction"`
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return "", refuse("Write it as Docker's profiles are", "the seccomp profile isn't JSON: %s", err)
	}
	if !strings.HasPrefix(known.DefaultAction, "SCMP_ACT_") {
		return "", refuse("Write it as Docker's profiles are", "the seccomp profile has no defaultAction such as SCMP_ACT_ERRNO")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return "", refuse("", "the seccomp profile isn't JSON: %s", err)
	}
	return compact.String(), nil
}

// composeConfinement is what Encode writes of it.
type composeConfinement struct {
	PID         string            `yaml:"pid,omitempty"`
	IPC         string            `yaml:"ipc,omitempty"`
	Privileged  bool              `yaml:"privileged,omitempty"`
	Devices     []composeDevice   `yaml:"devices,omitempty"`
	DeviceRules []string          `yaml:"device_cgroup_rules,omitempty"`
	SecurityOpt []string          `yaml:"security_opt,omitempty"`
	Sysctls     map[string]string `yaml:"sysctls,omitempty"`
	GroupAdd    []string          `yaml:"group_add,omitempty,flow"`
	Init        bool              `yaml:"init,omitempty"`
	TTY         bool              `yaml:"tty,omitempty"`
	StdinOpen   bool              `yaml:"stdin_open,omitempty"`
	OOMScoreAdj int               `yaml:"oom_score_adj,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
	DomainName  string            `yaml:"domainname,omitempty"`
}

type composeDevice struct {
	Source string `yaml:"source"`
	Target string `yaml:"target"`
	Access string `yaml:"permissions"`
}

func encodeConfinement(box spec.Container) composeConfinement {
	out := composeConfinement{
		Privileged: box.Privileged, DeviceRules: box.DeviceRules, Sysctls: box.Sysctls,
		GroupAdd: box.GroupAdd, Init: box.Init, TTY: box.TTY, StdinOpen: box.StdinOpen,
		OOMScoreAdj: box.OOMScoreAdj, Annotations: box.Annotations, DomainName: box.DomainName,
	}
	if box.HostPID {
		out.PID = "host"
	}
	if box.HostIPC {
		out.IPC = "host"
	}
	for _, d := range box.Devices {
		out.Devices = append(out.Devices, composeDevice(d))
	}
	if box.NewPrivs {
		out.SecurityOpt = append(out.SecurityOpt, "no-new-privileges:false")
	}
	if box.Seccomp != "" {
		out.SecurityOpt = append(out.SecurityOpt, "seccomp:"+box.Seccomp)
	}
	if box.AppArmor != "" {
		out.SecurityOpt = append(out.SecurityOpt, "apparmor:"+box.AppArmor)
	}
	return out
}
