package netns

import (
	"net/netip"
	"slices"
	"testing"
)

// The advice ends the outage: a drop is final wherever it stands, and only in
// FORWARD of dunnage's own backend can it be moved behind what dunnage accepts.
func TestForwardDrops(t *testing.T) {
	const jump = `-A FORWARD -m comment --comment "dunnage: forward" -j DUNNAGE-FORWARD`
	for _, c := range []struct {
		name, filter string
		want         []string
	}{
		{"none", ":FORWARD ACCEPT [0:0]\n" + jump, nil},
		{"behind ours", ":FORWARD DROP [0:0]\n" + jump + "\n-A FORWARD -p tcp -j DROP", nil},
		{"before ours", ":FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j DROP\n" + jump, []string{
			`iptables-nft: rule "-t filter -A FORWARD -p tcp -j DROP" comes before dunnage's and may drop traffic of replicas; ` +
				"delete it (`iptables-nft -t filter -D FORWARD -p tcp -j DROP`), narrow it, or move it behind the jump to DUNNAGE-FORWARD",
		}},
		{"the other backend", ":FORWARD DROP [0:0]\n-A FORWARD -p tcp -j REJECT", []string{
			"iptables-nft: the policy DROP of FORWARD drops traffic of replicas, whatever dunnage's own rules accept; " +
				"set another (`iptables-nft -P FORWARD ACCEPT`), or add rules that accept what goes to and comes from dun+",
			`iptables-nft: rule "-t filter -A FORWARD -p tcp -j REJECT" may drop traffic of replicas, whatever dunnage's own rules accept; ` +
				"delete it (`iptables-nft -t filter -D FORWARD -p tcp -j REJECT`), or narrow it",
		}},
	} {
		if got := forwardDrops("iptables-nft", "*filter\n"+c.filter+"\nCOMMIT\n", traffic{}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A rule that has nothing to do with replicas is none to delete.
func TestMetBy(t *testing.T) {
	about := traffic{pools: []netip.Prefix{pool4, pool6}, uplinks: []string{"eth0"}}
	for rule, want := range map[string]bool{
		"-j DROP": true,
		"-p tcp -j REJECT --reject-with tcp-reset":                   true,
		"-i eth0 -j DROP":                                            true,
		"-m conntrack --ctstate NEW -j DROP":                         true,
		`-m comment --comment "no \"-s 192.0.2.0/24\" here" -j DROP`: true,
		"! -s 192.0.2.0/24 -j DROP":                                  true,
		"-i dun+ -p tcp -m tcp --dport 25 -j DROP":                   true,
		"-p tcp -m tcp --tcp-flags SYN SYN -d 10.213.1.2/32 -j DROP": true,
		"-d fd00:d::/48 -j DROP":                                     true,
		"-p tcp -m tcp --dport 8080 -j DROP":                         false,
		"-s 192.0.2.0/24 -p tcp -m tcp --dport 443 -j DROP":          false,
		"-s 192.0.2.0/24 -j DROP":                                    false,
		"-o virbr0 -j REJECT --reject-with icmp-port-unreachable":    false,
		"-i eth1 -o eth0 -j DROP":                                    false,
		"-m set --match-set blocked src -j DROP":                     false,
		"-m conntrack --ctstate INVALID -j DROP":                     false,
		"-s 10.0.0.0/8 -i eth0 -j DROP":                              false,
	} {
		if got := about.metBy("-A FORWARD " + rule); got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}
