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

// reading is what the kernel had when it was read last. In nf_tables every
// commit, whoever makes it, gives the namespace's ruleset another generation
// number, so that an unchanged number means unchanged rules: to ask for it takes
// 20 µs, iptables-save at least 5 ms. Legacy tables have no such number.
type reading struct {
	mu         sync.Mutex
	generation uint32    // 0 = nothing is kept
	at         time.Time // when legacy tables were read
	text       string
	doc        rules.Document
}

// rules returns everything that iptables-save prints, and our part of it.
func (p programs) rules(ctx context.Context) (string, rules.Document, error) {
	r := p.last
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.legacy {
		text, err := p.read(ctx)
		if err != nil {
			return "", nil, err
		}
		r.text, r.at = text, time.Now()
		return text, rules.Parse(text), nil
	}
	before, err := rulesetGeneration()
	if err != nil {
		return "", nil, err
	}
	if before == r.generation {
		return r.text, r.doc, nil
	}
	text, err := p.read(ctx)
	if err != nil {
		return "", nil, err
	}
	doc := rules.Parse(text)
	after, err := rulesetGeneration()
	if err != nil {
		return "", nil, err
	}
	r.generation = 0
	if before == after {
		r.generation, r.text, r.doc = after, text, doc
	}
	return text, doc, nil
}

// legacyPoll is the time between two looks at legacy tables that nothing else
// asks for.
const legacyPoll = 30 * time.Second

// lately is what rules returns as text, for legacy tables as old as legacyPoll.
func (p programs) lately(ctx context.Context) (string, error) {
	if text, ok := p.last.recent(); p.legacy && ok {
		return text, nil
	}
	text, _, err := p.rules(ctx)
	return text, err
}

func (r *reading) recent() (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text, !r.at.IsZero() && time.Since(r.at) < legacyPoll
}

// rulesetGeneration is the number of the present ruleset of this network
// namespace. It is never 0.
func rulesetGeneration() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
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
