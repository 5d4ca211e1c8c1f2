package manifest

import "dunnage/spec"

// checkDisk refuses a limit that a replica passes by starting.
func checkDisk(v string) error {
	n, err := parseSize(v)
	if err == nil && n < spec.SmallestDisk {
		return refuse("Write it as 2G, or remove the key for none", "a writable layer of %q is too small: at least 1M", clip(v))
	}
	return err
}
