package netns

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
)

// ruleset is what the kernel has.
type ruleset struct {
	generation uint64         // 0 = not known
	text       string         // everything that iptables-save prints
	doc        rules.Document // our part of it
}

// reading is the ruleset as it was read last. In nf_tables every commit,
// whoever makes it, gives the namespace's ruleset another generation number, so
// that an unchanged number means unchanged rules: to ask for it takes 20 µs,
// iptables-save at least 5 ms. For legacy tables see xtables.
type reading struct {
	mu        sync.Mutex
	at        time.Time
	concluded bool // from our own commits since the reading before
	ruleset
}

// concludedStands is how long what was concluded does for a reading: after a
// commit, to read takes another 12 ms, for which a deploy would wait.
const concludedStands = 100 * time.Millisecond

// rules returns what the kernel has.
func (p programs) rules(ctx context.Context) (ruleset, error) {
	r := p.last
	r.mu.Lock()
	defer r.mu.Unlock()
	before, err := p.generation()
	if err != nil {
		return ruleset{}, err
	}
	if before != 0 && before == r.generation && !(r.concluded && time.Since(r.at) > concludedStands) {
		return r.ruleset, nil
	}
	text, err := p.read(ctx)
	if err != nil {
		return ruleset{}, err
	}
	r.ruleset, r.at, r.concluded = ruleset{text: text, doc: rules.Parse(text)}, time.Now(), false
	after, err := p.generation()
	if err != nil {
		return ruleset{}, err
	}
	if before == after {
		r.generation = after
	}
	return r.ruleset, nil
}

// conclude notes what the kernel has after the commits of an Apply. It does
// only if nobody else has committed since what they were made from was read:
// the generation went up by their number. What isn't ours is as it was then.
func (t tables) conclude(all ...change) {
	if t.v4.legacy {
		return
	}
	from := all[0].from.generation
	to := from
	for _, c := range all {
		if c.from.generation == 0 || c.from.generation != from || c.jumps || c.from.doc.Foreign() {
			return // the next look reads
		}
		to += uint64(c.commits)
	}
	now, err := t.v4.generation()
	if err != nil || now != to {
		return
	}
	for _, c := range all {
		c.of.conclude(ruleset{now, c.from.text, c.want})
	}
}

func (r *reading) conclude(s ruleset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ruleset, r.at, r.concluded = s, time.Now(), true
}

// forget makes the next look read.
func (r *reading) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ruleset = ruleset{}
}

// generation is a number that is another one after any change of the rules. 0 =
// there is none: legacy tables that can't be read but by iptables-save.
func (p programs) generation() (uint64, error) {
	if p.legacy {
		number, err := p.xtables.fingerprint(p.proto)
		if err != nil {
			return 0, nil // what is wrong with the tables, iptables-save will say
		}
		return number, nil
	}
	number, err := p.generations.generation()
	return uint64(number), err
}

// generation is the number of the present ruleset of this network namespace.
// It is never 0.
func (s *netfilter) generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := s.execute(req)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of the rules: %w", err)
	}
	var generation uint32
	for _, m := range messages {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		attributes(m[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				generation = binary.BigEndian.Uint32(value)
			}
		})
	}
	if generation == 0 {
		return 0, fmt.Errorf("ask for the generation of the rules: the kernel gave none")
	}
	return generation, nil
}
