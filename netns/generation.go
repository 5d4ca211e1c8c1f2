package netns

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

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
	generation uint32 // 0 = nothing is kept
	text       string
	doc        rules.Document
}

// rules returns everything that iptables-save prints, and our part of it.
func (p programs) rules(ctx context.Context) (string, rules.Document, error) {
	if p.legacy {
		text, err := p.read(ctx)
		return text, rules.Parse(text), err
	}
	before, err := rulesetGeneration()
	if err != nil {
		return "", nil, err
	}
	r := p.last
	r.mu.Lock()
	defer r.mu.Unlock()
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
