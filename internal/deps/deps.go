// Package deps keeps the modules in go.mod while the packages that import them are written.
package deps
import (
 _ "github.com/compose-spec/compose-go/v2/loader"
 _ "github.com/containerd/containerd/v2/client"
 _ "github.com/coreos/go-iptables/iptables"
 _ "github.com/vishvananda/netlink"
 _ "go.etcd.io/bbolt"
 _ "github.com/urfave/cli/v2"
 _ "go.yaml.in/yaml/v4"
 _ "github.com/moby/profiles/seccomp"
 _ "github.com/docker/cli/cli/config"
 _ "github.com/google/go-containerregistry/pkg/v1/tarball"
 _ "github.com/rogpeppe/go-internal/testscript"
 _ "pgregory.net/rapid"
 _ "go.uber.org/goleak"
 _ "github.com/google/go-cmp/cmp"
 _ "github.com/vbauerster/mpb/v8"
 _ "golang.org/x/term"
 _ "golang.org/x/sync/errgroup"
 _ "golang.org/x/sys/unix"
 _ "github.com/coreos/go-systemd/v22/daemon"
)
