package engine

import (
	"errors"
	"fmt"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"

	"dunnage/spec"
)

// lookUpUser turns "", "name", "uid", "name:group" or "uid:gid" into numbers
// by the root file system's own passwd and group files, with the
// supplementary groups that the user has there, as Docker does.
func lookUpUser(root *rootView, name string) (specs.User, error) {
	passwd, err := root.file("/etc/passwd")
	if err != nil {
		return specs.User{}, fmt.Errorf("read the image's /etc/passwd: %w", err)
	}
	defer passwd.Close()
	group, err := root.file("/etc/group")
	if err != nil {
		return specs.User{}, fmt.Errorf("read the image's /etc/group: %w", err)
	}
	defer group.Close()
	u, err := user.GetExecUser(name, nil, passwd, group)
	if err != nil {
		return specs.User{}, userError(name, err)
	}
	out := specs.User{UID: uint32(u.Uid), GID: uint32(u.Gid)}
	for _, g := range u.Sgids {
		if g != u.Gid {
			out.AdditionalGids = append(out.AdditionalGids, uint32(g))
		}
	}
	return out, nil
}

func userError(name string, err error) error {
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return fmt.Errorf("user %q is not in the image's /etc/passwd: use a number, or an image that has the user: %w", name, spec.ErrRefused)
	case errors.Is(err, user.ErrNoGroupEntries):
		return fmt.Errorf("the group of user %q is not in the image's /etc/group: use a number, or an image that has the group: %w", name, spec.ErrRefused)
	}
	return fmt.Errorf("user %q: %w", name, err)
}
