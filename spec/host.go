package spec

import "net/netip"

// HostConfig is what the owner of a host sets in the agent's file (`--config`).
// The zero value means the defaults that are named here.
type HostConfig struct {
	Disk DiskConfig `json:"disk"`
	// Logs are the options of services that don't set them.
	Logs Logging `json:"logs"`
	// Metrics is a loopback address that metrics are served at beside the
	// socket; zero = none.
	Metrics netip.AddrPort `json:"metrics,omitzero"`
}

// DiskConfig bounds what dunnage keeps on disk.
type DiskConfig struct {
	// Budget is the ceiling in bytes of what DiskKind.Counted names; 0 = none.
	Budget int64 `json:"budget,omitempty"`
	// KeepReleases is how many of the newest releases of a project stay for a
	// rollback, the desired one and failed ones included, with their images; 0 =
	// DefaultKeepReleases. Beside them stay the last two that ran, and the last one
	// that ran with another image.
	KeepReleases int `json:"keep_releases,omitempty"`
}

// DefaultKeepReleases is how many releases of a project stay unless the host's
// owner says otherwise.
const DefaultKeepReleases = 10
