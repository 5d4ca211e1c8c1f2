package engine

import (
	"fmt"

	profile "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/pkg/apparmor"
)

// apparmorProfile is containerd's default profile, which is Docker's, under a
// name of our own.
const apparmorProfile = "dunnage-default"

// loadProfile gives the kernel the profile unless it has it. It belongs to each
// start: a container outlives a reboot and the kernel's profiles don't.
func loadProfile() error {
	if !apparmor.HostSupports() {
		return nil
	}
	if err := profile.LoadDefaultProfile(apparmorProfile); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w", apparmorProfile, err)
	}
	return nil
}
