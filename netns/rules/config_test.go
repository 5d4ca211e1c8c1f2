package rules

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestCheck: pools that would take from the host what every host needs are refused.
func TestCheck(t *testing.T) {
	pool4, pool6 := netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("fd64:756e:6e61::/48")
	for _, tc := range []struct{ pool, pool6, want string }{
		{"10.208.0.0/12", "fd64:756e:6e61::/48", ""},
		{"10.0.0.0/8", "", ""},
		{"192.168.0.0/23", "2001:db8::/32", ""},
		{"10.0.0.0/24", "", "/23 or larger"},
		{"0.0.0.0/0", "", "pool 0.0.0.0/0"},
		{"64.0.0.0/2", "", "127.0.0.0/8"},
		{"128.0.0.0/7", "", "wider than a /8"},
		{"127.0.0.0/8", "", "loopback"},
		{"169.254.0.0/16", "", "link-local"},
		{"224.0.0.0/8", "", "multicast"},
		{"250.0.0.0/8", "", "reserved"},
		{"10.0.0.0/8", "::/0", "pool6 ::/0"},
		{"10.0.0.0/8", "fe80::/10", "link-local"},
		{"10.0.0.0/8", "ff00::/8", "multicast"},
		{"10.0.0.0/8", "2000::/3", "wider than a /8"},
		{"10.0.0.0/8", "2001::/16", "the IPv6 world"},
		{"10.0.0.0/8", "fd00::/64", "/63 or larger"},
	} {
		c := Config{Pool: netip.MustParsePrefix(tc.pool)}
		if tc.pool6 != "" {
			c.Pool6 = netip.MustParsePrefix(tc.pool6)
		}
		err := c.Check()
		if tc.want == "" && err == nil {
			continue
		}
		if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), tc.want) || tc.want == "" {
			t.Errorf("%s, %s: %v, want %q", tc.pool, tc.pool6, err, tc.want)
		}
	}
	if err := (Config{Pool: pool4, Pool6: pool6}).Check(); err != nil {
		t.Errorf("the default: %v", err)
	}
}
