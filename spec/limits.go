package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Limits bound what a replica may use. They are not part of its generation:
// a change is applied to running replicas. Zero means no limit, but for Pids.
type Limits struct {
	CPUs         float64      `json:"cpus,omitempty"`          // of time: 1.5 is one and a half cores
	CPUShares    uint64       `json:"cpu_shares,omitempty"`    // weight against others when the CPU is short, 2 to 262144, 1024 is usual
	CPUSet       string       `json:"cpuset,omitempty"`        // cores it may run on, "0-2,4"
	Memory       int64        `json:"memory,omitempty"`        // bytes
	MemorySwap   int64        `json:"memory_swap,omitempty"`   // bytes of memory and swap together; 0 = as much as Memory (no swap), -1 = no limit
	MemoryLow    int64        `json:"memory_low,omitempty"`    // bytes that are reclaimed last
	Pids         int64        `json:"pids,omitempty"`          // processes and threads; 0 = 4096, -1 = no limit
	BlockWeight  uint16       `json:"block_weight,omitempty"`  // 10 to 1000
	BlockDevices []BlockLimit `json:"block_devices,omitempty"` // sorted by Path
}

// BlockLimit bounds the use of one block device. Zero means no limit.
type BlockLimit struct {
	Path      string `json:"path"`                // of the device node
	ReadBps   uint64 `json:"read_bps,omitempty"`  // bytes a second
	WriteBps  uint64 `json:"write_bps,omitempty"` // bytes a second
	ReadIOPS  uint64 `json:"read_iops,omitempty"`
	WriteIOPS uint64 `json:"write_iops,omitempty"`
}

// Fingerprint tells limits apart. It is empty for none at all.
func (l Limits) Fingerprint() string {
	b, err := json.Marshal(l)
	if err != nil { // only a number that JSON can't encode could cause it
		panic(fmt.Sprintf("encode limits: %v", err))
	}
	if string(b) == "{}" {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
