package secrets

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the memory of this process out of core files and from other
// processes of its user. Programs that it starts aren't touched, which a limit
// on core files would do.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep core files from being written: %w", err)
	}
	return nil
}
