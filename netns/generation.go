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
	generation uint32         // 0 = not known
	text       string         // everything that iptables-save prints
	doc        rules.Document // our part of it
}

// reading is the ruleset as it was read last. In nf_tables every commit,
// whoever makes it, gives the namespace's ruleset another generation number, so
// that an unchanged number means unchanged rules: to ask for it takes 20 µs,
// iptables-save at least 5 ms. Legacy tables have no such number.
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
	var before uint32
	if !p.legacy {
		var err error
		if before, err = p.generations.generation(); err != nil {
			return ruleset{}, err
		}
		if before == r.generation && !(r.concluded && time.Since(r.at) > concludedStands) {
			return r.ruleset, nil
		}
	}
	text, err := p.read(ctx)
	if err != nil {
		return ruleset{}, err
	}
	r.ruleset, r.at, r.concluded = ruleset{text: text, doc: rules.Parse(text)}, time.Now(), false
	if !p.legacy {
		after, err := p.generations.generation()
		if err != nil {
			return ruleset{}, err
		}
		if before == after {
			r.generation = after
		}
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
		to += c.commits
	}
	now, err := t.v4.generations.generation()
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

// legacyPoll is the time between two looks at legacy tables that nothing else
// asks for.
const legacyPoll = 30 * time.Second

// lately is what rules returns as text, for legacy tables as old as legacyPoll.
func (p programs) lately(ctx context.Context) (string, error) {
	if text, ok := p.last.recent(); p.legacy && ok {
		return text, nil
	}
	have, err := p.rules(ctx)
	return have.text, err
}

func (r *reading) recent() (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text, !r.at.IsZero() && time.Since(r.at) < legacyPoll
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
