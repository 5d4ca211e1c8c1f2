package netns

import (
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
			`iptables-nft: rule "-t filter -A FORWARD -p tcp -j DROP" comes before dunnage's and may drop traffic of replicas: ` +
				"delete it (`iptables-nft -t filter -D FORWARD -p tcp -j DROP`), narrow it, or move it behind the jump to DUNNAGE-FORWARD",
		}},
		{"the other backend", ":FORWARD DROP [0:0]\n-A FORWARD -p tcp -j REJECT", []string{
			"iptables-nft: the policy DROP of FORWARD drops traffic of replicas, whatever dunnage's own rules accept: " +
				"set another (`iptables-nft -P FORWARD ACCEPT`), or add rules that accept what goes to and comes from dun+",
			`iptables-nft: rule "-t filter -A FORWARD -p tcp -j REJECT" may drop traffic of replicas, whatever dunnage's own rules accept: ` +
				"delete it (`iptables-nft -t filter -D FORWARD -p tcp -j REJECT`), or narrow it",
		}},
	} {
		if got := forwardDrops("iptables-nft", "*filter\n"+c.filter+"\nCOMMIT\n"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
