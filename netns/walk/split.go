package walk

import "slices"

// split asks the rule which packets it takes. Where that isn't known there are
// two ways from then on, which hang on the number of the split: the one where
// the rule took the packet, and the one where it didn't.
func (w *walker) split(r *rule, p *packet) (taken, left *packet) {
	hit := r.test(p)
	switch {
	case hit == no:
		return nil, p
	case hit == yes && (r.chance == 0 || r.chance >= 1):
		return p, nil
	}
	taken, left = p.copied(), p.copied()
	if hit == maybe {
		taken, left = w.parted(p)
	}
	if r.chance > 0 {
		taken.chance *= r.chance
		left.chance *= 1 - r.chance
	}
	return taken, left
}

// parted is the packet on the two ways of a new split.
func (w *walker) parted(p *packet) (taken, left *packet) {
	taken, left = p.copied(), p.copied()
	w.last++
	taken.hangs, left.hangs = append(taken.hangs, w.last), append(left.hangs, -w.last)
	return taken, left
}

func (p *packet) copied() *packet {
	c := *p
	c.hangs = slices.Clone(p.hangs)
	return &c
}

// merge joins packets that rules can't tell apart any more. If both ways of a
// split come back, it didn't matter.
func (w *walker) merge(ways []*packet) []*packet {
	var kept []*packet
	for _, p := range ways {
		for i := 0; i < len(kept); {
			if o := kept[i]; o.state() == p.state() {
				p = w.joined(o, p)
				kept = slices.Delete(kept, i, i+1)
				i = 0
				continue
			}
			i++
		}
		kept = append(kept, p)
	}
	return kept
}

func (w *walker) joined(a, b *packet) *packet {
	p := a.copied()
	if slices.Equal(a.hangs, b.hangs) { // dice
		p.chance += b.chance
		return p
	}
	p.chance = max(a.chance, b.chance)
	n := 0
	for n < min(len(a.hangs), len(b.hangs)) && a.hangs[n] == b.hangs[n] {
		n++
	}
	p.hangs = p.hangs[:n]
	if len(a.hangs) == n+1 && len(b.hangs) == n+1 && a.hangs[n] == -b.hangs[n] {
		return p
	}
	w.last++ // a part of it has ended elsewhere
	p.hangs = append(p.hangs, w.last)
	return p
}
