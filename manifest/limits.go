package manifest

import (
	"cmp"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"

	"dunnage/spec"

	"github.com/compose-spec/compose-go/v2/types"
)

// Bounds of limits. Those of the CPU are the kernel's: a period is 1 ms to 1 s,
// a quota at least 1 ms of it.
const (
	minMemory     = 6 << 20 // Docker's: less doesn't start a process
	minCPUs       = 0.01    // Docker's
	maxCPUs       = 8192    // the kernel's CONFIG_NR_CPUS
	defaultPeriod = 100_000
)

var (
	kindCPUs      = kind{shape: textOrInt | shapeFloat, check: checkCPUs, what: "a number of CPUs, such as 1.5"}
	kindQuota     = kind{shape: textOrInt, check: checkQuota, what: "microseconds"}
	kindCPUPeriod = kind{shape: textOrInt, check: within("the period", 1000, 1_000_000), what: "microseconds"}
	kindShares    = kind{shape: textOrInt, check: within("the weight", 2, 262_144), what: "a whole number"}
	kindCPUSet    = kind{shape: textOrInt, check: checkCPUSet, what: "a set of cores, such as 0-2,4"}
	kindMemory    = kind{shape: textOrInt, check: checkMemory, what: "a size, such as 64m"}
	kindSwap      = kind{shape: textOrInt, check: checkSwap, what: "a size, such as 64m"}
	kindPids      = kind{shape: textOrInt, check: checkPids, what: "a whole number"}
	kindWeight    = kind{shape: textOrInt, check: within("the weight", 10, 1000), what: "a whole number"}
	kindRate      = kind{shape: textOrInt, check: checkSize, what: "a rate, such as 10mb or 1000"}
	kindHostPath  = kind{shape: shapeText, check: checkHostPath}
)

func within(what string, least, most int64) check {
	return func(v string) error {
		if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < least || n > most {
			return refuse("", "%s %q isn't a whole number from %d to %d", what, clip(v), least, most)
		}
		return nil
	}
}

func checkCPUs(v string) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(n) || n != 0 && n < minCPUs || n > maxCPUs {
		return refuse("Write a number such as 0.5 or 2", "%q isn't a number of CPUs of at least %v", clip(v), minCPUs)
	}
	return nil
}

func checkQuota(v string) error {
	if v == "-1" || v == "0" {
		return nil
	}
	return within("the quota", 1000, math.MaxInt32)(v)
}

var coreRange = regexp.MustCompile(`^([0-9]{1,4})(?:-([0-9]{1,4}))?$`)

func checkCPUSet(v string) error {
	for part := range strings.SplitSeq(v, ",") {
		m := coreRange.FindStringSubmatch(part)
		if m == nil {
			return refuse("Write cores and ranges such as 0-2,4", "%q isn't a set of cores", clip(v))
		}
		first, _ := strconv.Atoi(m[1])
		if last, err := strconv.Atoi(m[2]); err == nil && last < first {
			return refuse("Write the lower core first", "the range %q ends before it starts", part)
		}
	}
	return nil
}

func checkMemory(v string) error {
	n, err := parseSize(v)
	if err == nil && n != 0 && n < minMemory {
		return refuse("Raise it", "%q is too little memory for a process to start: at least 6m", clip(v))
	}
	return err
}

func checkSwap(v string) error {
	if v == "-1" {
		return nil
	}
	return checkSize(v)
}

func checkPids(v string) error {
	if n, err := strconv.ParseInt(v, 10, 32); err != nil || n < -1 {
		return refuse("", "%q isn't a number of processes: a whole number, or -1 for unlimited", clip(v))
	}
	return nil
}

func checkHostPath(v string) error {
	if !path.IsAbs(v) {
		return refuse("Write it from / on", "%q isn't an absolute path of the host", clip(v))
	}
	return nil
}

// limits joins the two places where Compose has them.
func (c *converter) limits(name string, in types.ServiceConfig) spec.Limits {
	var most, least types.Resource
	if d := in.Deploy; d != nil {
		if d.Resources.Limits != nil {
			most = *d.Resources.Limits
		}
		if d.Resources.Reservations != nil {
			least = *d.Resources.Reservations
		}
	}
	l := spec.Limits{
		CPUs:       exact(either(c, name, "cpus", in.CPUS, "limits.cpus", float32(most.NanoCPUs))),
		CPUShares:  uint64(in.CPUShares),
		CPUSet:     in.CPUSet,
		Memory:     int64(either(c, name, "mem_limit", in.MemLimit, "limits.memory", most.MemoryBytes)),
		MemorySwap: int64(in.MemSwapLimit),
		MemoryLow:  int64(either(c, name, "mem_reservation", in.MemReservation, "reservations.memory", least.MemoryBytes)),
		Pids:       either(c, name, "pids_limit", in.PidsLimit, "limits.pids", most.Pids),
	}
	if l.CPUShares == 0 && least.NanoCPUs > 0 {
		l.CPUShares = min(max(uint64(math.Round(float64(least.NanoCPUs)*1024)), 2), 262_144)
	}
	c.quota(name, in, &l)
	c.checkMemory(name, &l)
	if in.BlkioConfig != nil {
		l.BlockWeight = in.BlkioConfig.Weight
		l.BlockDevices = blockLimits(*in.BlkioConfig)
	}
	return l
}

// either is the value of a key that has a second place under deploy.resources.
func either[T cmp.Ordered](c *converter, name, key string, a T, deployKey string, b T) T {
	var zero T
	if a != zero && b != zero && a != b {
		c.failAt(refuse("Remove one of them", "it says %v, but deploy.resources.%s says %v", a, deployKey, b), "services", name, key)
	}
	if a != zero {
		return a
	}
	return b
}

// exact is the decimal number that a float32 was read from.
func exact(v float32) float64 {
	n, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	return n
}

// quota turns cpu_quota and cpu_period into a number of CPUs.
func (c *converter) quota(name string, in types.ServiceConfig, l *spec.Limits) {
	switch {
	case in.CPUQuota == 0 && in.CPUPeriod == 0:
	case in.CPUQuota == 0:
		c.failAt(refuse("Add cpu_quota, or write cpus instead", "a period without a quota limits nothing"), "services", name, "cpu_period")
	case l.CPUs != 0:
		c.failAt(refuse("Remove one of them", "cpus says the same in another way"), "services", name, "cpu_quota")
	case in.CPUQuota > 0:
		l.CPUs = exact(float32(float64(in.CPUQuota) / float64(cmp.Or(in.CPUPeriod, defaultPeriod))))
	}
}

func (c *converter) checkMemory(name string, l *spec.Limits) {
	swap := []string{"services", name, "memswap_limit"}
	switch {
	case l.MemorySwap != 0 && l.Memory == 0:
		c.failAt(refuse("Add mem_limit", "swap can be limited together with memory only"), swap...)
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		c.failAt(refuse("Raise it; it counts memory and swap together", "it is below the memory limit of %d bytes", l.Memory), swap...)
	case l.MemorySwap == l.Memory:
		l.MemorySwap = 0 // said once
	}
	if l.Memory != 0 && l.MemoryLow > l.Memory {
		c.failAt(refuse("Lower it", "the reservation is above the memory limit of %d bytes", l.Memory), "services", name, "mem_reservation")
	}
}

// blockLimits gathers what is said of each device.
func blockLimits(in types.BlkioConfig) []spec.BlockLimit {
	by := map[string]*spec.BlockLimit{}
	collect := func(list []types.ThrottleDevice, field func(*spec.BlockLimit) *uint64) {
		for _, d := range list {
			p := path.Clean(d.Path)
			if by[p] == nil {
				by[p] = &spec.BlockLimit{Path: p}
			}
			*field(by[p]) = uint64(d.Rate)
		}
	}
	collect(in.DeviceReadBps, func(l *spec.BlockLimit) *uint64 { return &l.ReadBps })
	collect(in.DeviceWriteBps, func(l *spec.BlockLimit) *uint64 { return &l.WriteBps })
	collect(in.DeviceReadIOps, func(l *spec.BlockLimit) *uint64 { return &l.ReadIOPS })
	collect(in.DeviceWriteIOps, func(l *spec.BlockLimit) *uint64 { return &l.WriteIOPS })
	var out []spec.BlockLimit
	for _, p := range sorted(by) {
		out = append(out, *by[p])
	}
	return out
}

// composeLimits are the limits as Encode writes them.
type composeLimits struct {
	CPUs        float64       `yaml:"cpus,omitempty"`
	CPUShares   uint64        `yaml:"cpu_shares,omitempty"`
	CPUSet      string        `yaml:"cpuset,omitempty"`
	MemLimit    int64         `yaml:"mem_limit,omitempty"`
	MemReserve  int64         `yaml:"mem_reservation,omitempty"`
	MemSwap     int64         `yaml:"memswap_limit,omitempty"`
	PidsLimit   int64         `yaml:"pids_limit,omitempty"`
	BlkioConfig *composeBlkio `yaml:"blkio_config,omitempty"`
}

type composeBlkio struct {
	Weight    uint16        `yaml:"weight,omitempty"`
	ReadBps   []composeRate `yaml:"device_read_bps,omitempty"`
	WriteBps  []composeRate `yaml:"device_write_bps,omitempty"`
	ReadIOPS  []composeRate `yaml:"device_read_iops,omitempty"`
	WriteIOPS []composeRate `yaml:"device_write_iops,omitempty"`
}

type composeRate struct {
	Path string `yaml:"path"`
	Rate uint64 `yaml:"rate"`
}

func encodeLimits(l spec.Limits) composeLimits {
	out := composeLimits{
		CPUs: l.CPUs, CPUShares: l.CPUShares, CPUSet: l.CPUSet,
		MemLimit: l.Memory, MemReserve: l.MemoryLow, MemSwap: l.MemorySwap, PidsLimit: l.Pids,
	}
	if l.BlockWeight == 0 && len(l.BlockDevices) == 0 {
		return out
	}
	b := &composeBlkio{Weight: l.BlockWeight}
	add := func(list *[]composeRate, path string, rate uint64) {
		if rate > 0 {
			*list = append(*list, composeRate{path, rate})
		}
	}
	for _, d := range l.BlockDevices {
		add(&b.ReadBps, d.Path, d.ReadBps)
		add(&b.WriteBps, d.Path, d.WriteBps)
		add(&b.ReadIOPS, d.Path, d.ReadIOPS)
		add(&b.WriteIOPS, d.Path, d.WriteIOPS)
	}
	out.BlkioConfig = b
	return out
}
