package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"dunnage/spec"
)

const (
	// cpuPeriod is the time in microseconds over which a quota holds. In the
	// kernel's default of 100,000 somebody who takes all of his quota at once
	// keeps his neighbours waiting for tens of milliseconds (their p99 beside a
	// hog: 6.2 times the one without it, with this period 4 times).
	cpuPeriod = 10_000
	// cpuQuota is the smallest the kernel takes, in microseconds, and
	// longestPeriod its longest period.
	cpuQuota      = 1_000
	longestPeriod = 1_000_000
	// defaultShares is the kernel's weight of a group.
	defaultShares = 1024
	// noLimit is how the runtime writes it.
	noLimit = -1
)

// resources are the limits for the runtime. What was limited before and isn't
// any more is set to the kernel's default; what never was is left alone, so
// that a host without that controller can run the container.
func (e *Engine) resources(now, before spec.Limits) *specs.LinuxResources {
	r := &specs.LinuxResources{
		Memory: e.memory(now, before),
		CPU:    e.cpu(now, before),
		Pids:   &specs.LinuxPids{Limit: new(cmp.Or(now.Pids, pidsLimit))},
	}
	if now.MemoryLow == 0 && before.MemoryLow != 0 && e.cgroup.v2 {
		r.Unified = map[string]string{"memory.low": "0"} // the runtime takes a reservation of 0 for none given
	}
	return r
}

func (e *Engine) memory(now, before spec.Limits) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	if now.Memory != 0 || before.Memory != 0 {
		limit := cmp.Or(now.Memory, noLimit)
		m.Limit = &limit
		if swap := cmp.Or(now.MemorySwap, limit); e.cgroup.countsSwap() {
			m.Swap = &swap
		}
	}
	switch {
	case now.MemoryLow != 0:
		m.Reservation = &now.MemoryLow
	case before.MemoryLow != 0 && !e.cgroup.v2:
		m.Reservation = new(int64(noLimit))
	}
	return m
}

func (e *Engine) cpu(now, before spec.Limits) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: now.CPUSet}
	if now.CPUSet == "" && before.CPUSet != "" {
		c.Cpus = e.cgroup.cores()
	}
	if now.CPUs != 0 || before.CPUs != 0 {
		quota, period := int64(noLimit), float64(cpuPeriod)
		if now.CPUs != 0 {
			period = min(max(period, cpuQuota/now.CPUs), longestPeriod)
			quota = max(int64(math.Round(now.CPUs*period)), cpuQuota)
		}
		c.Quota, c.Period = &quota, new(uint64(math.Round(period)))
	}
	if now.CPUShares != 0 || before.CPUShares != 0 {
		c.Shares = new(cmp.Or(now.CPUShares, defaultShares))
	}
	return c
}

// blockIO are the limits of block devices for a new task. The runtime can't
// change them later; writeBlockIO does.
func blockIO(l spec.Limits) (*specs.LinuxBlockIO, error) {
	if l.BlockWeight == 0 && len(l.BlockDevices) == 0 {
		return nil, nil
	}
	b := &specs.LinuxBlockIO{}
	if l.BlockWeight != 0 {
		b.Weight = &l.BlockWeight
	}
	for _, d := range l.BlockDevices {
		major, minor, err := blockDevice(d.Path)
		if err != nil {
			return nil, err
		}
		add := func(list *[]specs.LinuxThrottleDevice, rate uint64) {
			if rate > 0 {
				t := specs.LinuxThrottleDevice{Rate: rate}
				t.Major, t.Minor = major, minor
				*list = append(*list, t)
			}
		}
		add(&b.ThrottleReadBpsDevice, d.ReadBps)
		add(&b.ThrottleWriteBpsDevice, d.WriteBps)
		add(&b.ThrottleReadIOPSDevice, d.ReadIOPS)
		add(&b.ThrottleWriteIOPSDevice, d.WriteIOPS)
	}
	return b, nil
}

func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("blkio_config: look at device %s: %w: %w", path, err, spec.ErrRefused)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("blkio_config: %s is not a block device: %w", path, spec.ErrRefused)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// Limit changes the limits of a container without touching its process: of the
// running task first, then of what the next start will use. After a crash in
// between, the container still says that it has the old ones, and it is done
// again. A limit below what the replica uses now is refused.
func (e *Engine) Limit(ctx context.Context, id string, l spec.Limits) error {
	defer e.replicas.Lock(id)()
	defer e.inventory.touch(id)
	if err := e.limit(ctx, id, l); err != nil {
		return fmt.Errorf("limit %s: %w", id, err)
	}
	return nil
}

func (e *Engine) limit(ctx context.Context, id string, l spec.Limits) error {
	c, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return e.wrap(ctx, err, "find its container")
	}
	rec, err := recordOf(c)
	if err != nil {
		return err
	}
	if _, err := blockIO(l); err != nil {
		return err
	}
	status, err := e.taskStatus(ctx, id)
	if err != nil {
		return err
	}
	if status == task.Status_RUNNING || status == task.Status_PAUSED {
		if err := e.limitTask(ctx, id, l, rec.Limits); err != nil {
			return err
		}
	}
	return e.storeLimits(ctx, c, rec, l)
}

func (e *Engine) limitTask(ctx context.Context, id string, now, before spec.Limits) error {
	if use, ok := e.cgroup.inUse(id); ok && now.Memory != 0 && use > now.Memory {
		return tooLow(now.Memory, use)
	}
	body, err := typeurl.MarshalAnyToProto(e.resources(now, before))
	if err != nil {
		return fmt.Errorf("encode limits: %w", err)
	}
	_, err = e.client.TaskService().Update(ctx, &tasks.UpdateTaskRequest{ContainerID: id, Resources: body})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil // it ended meanwhile
	}
	if err != nil {
		if use, ok := e.cgroup.inUse(id); ok && now.Memory != 0 && strings.Contains(err.Error(), "memory") {
			return errors.Join(tooLow(now.Memory, use), err)
		}
		return e.wrap(ctx, err, "change the running task")
	}
	return e.cgroup.writeBlockIO(id, now, before)
}

func tooLow(limit, use int64) error {
	return fmt.Errorf("the memory limit of %d bytes is below the %d that it uses now, which can't be taken back: raise mem_limit, or restart the service with the lower one: %w", limit, use, spec.ErrRefused)
}

// storeLimits makes the next start use the limits too.
func (e *Engine) storeLimits(ctx context.Context, c containers.Container, rec record, l spec.Limits) error {
	var s specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &s); err != nil {
		return fmt.Errorf("read runtime specification: %w", err)
	}
	if err := e.setResources(&s, l); err != nil {
		return err
	}
	body, err := typeurl.MarshalAny(&s)
	if err != nil {
		return fmt.Errorf("encode runtime specification: %w", err)
	}
	rec.Limits = l
	extension, err := rec.encode()
	if err != nil {
		return err
	}
	c.Spec = body
	c.Labels[labelLimits] = l.Fingerprint()
	c.Extensions[recordKey] = extension
	_, err = e.client.ContainerService().Update(ctx, c, "spec", "labels", "extensions")
	return e.wrap(ctx, err, "store the limits")
}

// setResources puts the limits into a runtime specification, whose rules for
// devices stay.
func (e *Engine) setResources(s *specs.Spec, l spec.Limits) error {
	r := e.resources(l, spec.Limits{})
	r.Devices = s.Linux.Resources.Devices
	var err error
	if r.BlockIO, err = blockIO(l); err != nil {
		return err
	}
	s.Linux.Resources = r
	return nil
}

// The rest knows the files of the cgroup controllers.

// countsSwap reports whether the kernel counts swap: on v1 it may be switched
// off, and then a limit can't be written; the runtime knows that of v2.
func (c cgroups) countsSwap() bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(c.memory), "memory.memsw.limit_in_bytes"))
	return c.v2 || err == nil
}

// cores are those that the parent group may use.
func (c cgroups) cores() string {
	path := filepath.Join(cgroupRoot, "cpuset", filepath.Base(c.procs), "cpuset.cpus")
	if c.v2 {
		path = filepath.Join(c.procs, "cpuset.cpus.effective")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// inUse is the memory of a replica in bytes that the kernel couldn't take back:
// all but the page cache of files.
func (c cgroups) inUse(id string) (int64, bool) {
	dir := filepath.Join(c.memory, id)
	current, stat, cache := "memory.usage_in_bytes", "total_", []string{"inactive_file", "active_file"}
	if c.v2 {
		current, stat = "memory.current", ""
	}
	used, ok := readUint(filepath.Join(dir, current))
	b, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if !ok || err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		for _, k := range cache {
			if err == nil && name == stat+k {
				used -= min(n, used)
			}
		}
	}
	return int64(used), true
}

// writeBlockIO changes the limits of block devices, which no runtime does for a
// running container. A device that is no longer limited gets the kernel's default.
func (c cgroups) writeBlockIO(id string, now, before spec.Limits) error {
	if now.BlockWeight != before.BlockWeight {
		if err := c.writeWeight(id, cmp.Or(now.BlockWeight, defaultWeight)); err != nil {
			return err
		}
	}
	devices := map[string]spec.BlockLimit{}
	for _, d := range before.BlockDevices {
		devices[d.Path] = spec.BlockLimit{Path: d.Path}
	}
	for _, d := range now.BlockDevices {
		devices[d.Path] = d
	}
	for _, d := range devices {
		major, minor, err := blockDevice(d.Path)
		if errors.Is(err, fs.ErrNotExist) && d == (spec.BlockLimit{Path: d.Path}) {
			continue // unplugged, and its limit with it
		}
		if err != nil {
			return err
		}
		if err := c.writeDevice(id, fmt.Sprintf("%d:%d", major, minor), d); err != nil {
			return fmt.Errorf("limit device %s: %w", d.Path, err)
		}
	}
	return nil
}

// defaultWeight is that of BFQ and of cgroup v2.
const defaultWeight = 100

func (c cgroups) writeWeight(id string, weight uint16) error {
	dir, names := filepath.Join(cgroupRoot, "blkio", filepath.Base(c.procs), id), []string{"blkio.bfq.weight", "blkio.weight"}
	if c.v2 {
		dir, names = filepath.Join(c.procs, id), []string{"io.bfq.weight", "io.weight"}
	}
	var err error
	for _, name := range names {
		if err = os.WriteFile(filepath.Join(dir, name), []byte(strconv.Itoa(int(weight))), 0); err == nil {
			return nil
		}
	}
	return fmt.Errorf("blkio_config.weight: this kernel schedules block I/O without weights: %w", errors.Join(err, spec.ErrRefused))
}

func (c cgroups) writeDevice(id, device string, l spec.BlockLimit) error {
	if c.v2 {
		rate := func(n uint64) string {
			if n == 0 {
				return "max"
			}
			return strconv.FormatUint(n, 10)
		}
		line := fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", device, rate(l.ReadBps), rate(l.WriteBps), rate(l.ReadIOPS), rate(l.WriteIOPS))
		return os.WriteFile(filepath.Join(c.procs, id, "io.max"), []byte(line), 0)
	}
	dir := filepath.Join(cgroupRoot, "blkio", filepath.Base(c.procs), id)
	for _, f := range []struct {
		name string
		rate uint64
	}{
		{"read_bps", l.ReadBps}, {"write_bps", l.WriteBps}, {"read_iops", l.ReadIOPS}, {"write_iops", l.WriteIOPS},
	} {
		line := fmt.Sprintf("%s %d", device, f.rate) // 0 takes a limit away
		if err := os.WriteFile(filepath.Join(dir, "blkio.throttle."+f.name+"_device"), []byte(line), 0); err != nil {
			return err
		}
	}
	return nil
}
