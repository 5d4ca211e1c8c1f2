package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// A client belongs to one of 256 buckets, by the last byte of its address, and
// each bucket to a backend. docs/adr/0016 says why it is done so.
const (
	buckets = 1 << 8
	fan     = 1 << 4 // both levels of the dispatch: low four bits, then high four
)

// sticky sends each bucket to its backend, in two steps of at most sixteen
// rules. In the second step, the backend with the most buckets takes what no
// other rule took, so whatever the address is, somebody takes it.
func (n *nat) sticky(chain string, s split, own []spec.Backend) {
	owners := assign(own)
	for low := range fan {
		child := n.hashed(kindBuckets, chain, fmt.Sprint(low))
		n.add(chain, n.client(low, fan-1), comment(s.owner+" by client"), "-j "+child)
		var of [fan]int
		for high := range fan {
			of[high] = owners[high*fan+low]
		}
		rest := commonest(of[:])
		for high, o := range of {
			if o != rest {
				n.dnat(child, s, n.client(high*fan, (fan-1)*fan), own[o], "")
			}
		}
		n.dnat(child, s, "", own[rest], "")
	}
}

// client matches addresses by bits of their last byte.
func (n *nat) client(value, mask int) string {
	last := func(b int) string {
		a := make([]byte, n.pool.Addr().BitLen()/8)
		a[len(a)-1] = byte(b)
		addr, _ := netip.AddrFromSlice(a)
		return addrText(addr)
	}
	return "-s " + last(value) + "/" + last(mask)
}

// assign returns the index of each bucket's backend: rendezvous hashing with
// quotas. Every backend wants every bucket with a score of its own; the best
// scores are served first, until a backend has its quota. Shares are thus as
// exact as whole buckets can be, and since a score depends on the replica and
// the bucket alone, another set of backends moves little more than it must.
// Quotas are dealt in the order of replica IDs, so all routes of a service
// agree: a client stays with one replica on all its ports and addresses.
func assign(own []spec.Backend) [buckets]int {
	order := make([]int, len(own))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(own[a].Replica, own[b].Replica) })
	var all []wish
	quota := make([]int, len(own))
	sum, dealt, given := total(own), 0, 0
	for _, i := range order {
		all = append(all, wishes(i, own[i].Replica)...)
		dealt += weight(own[i])
		quota[i] = dealt*buckets/sum - given
		given += quota[i]
	}
	slices.SortFunc(all, func(a, b wish) int { return cmp.Compare(a.score, b.score) })
	var owners [buckets]int
	var taken [buckets]bool
	for _, w := range all {
		if !taken[w.bucket] && quota[w.backend] > 0 {
			owners[w.bucket], taken[w.bucket] = w.backend, true
			quota[w.backend]--
		}
	}
	return owners
}

// wish is a backend's claim to a bucket.
type wish struct {
	score           uint64
	backend, bucket int
}

// wishes scores the buckets by SplitMix64, seeded with the replica's hash.
func wishes(backend int, replica string) []wish {
	sum := sha256.Sum256([]byte(replica))
	state := binary.BigEndian.Uint64(sum[:])
	all := make([]wish, buckets)
	for b := range all {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		all[b] = wish{score: z ^ z>>31, backend: backend, bucket: b}
	}
	return all
}

// commonest returns the value that stands most often in of, the first of them.
func commonest(of []int) int {
	count := map[int]int{}
	best := of[0]
	for _, o := range of {
		count[o]++
	}
	for _, o := range of {
		if count[o] > count[best] {
			best = o
		}
	}
	return best
}
