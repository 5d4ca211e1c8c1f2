package netns

import (
	"context"
	"fmt"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// Damaged names how the kernel differs from what Apply(r) left, and from what
// Attach left of the replicas.
func (n *Network) Damaged(ctx context.Context, r spec.Routing, replicas []string) ([]spec.Damage, error) {
	want4, want6, err := n.rendered.render(r, n.rules())
	if err != nil {
		return nil, fmt.Errorf("render rules: %w", err)
	}
	have4, have6, err := n.kernel(ctx)
	if err != nil {
		return nil, err
	}
	all, err := n.hostDamage(r)
	if err != nil {
		return nil, err
	}
	for _, d := range rules.Damage(want4, have4) {
		d.What = "IPv4 " + d.What
		all = append(all, d)
	}
	for _, d := range rules.Damage(want6, have6) {
		d.What = "IPv6 " + d.What
		all = append(all, d)
	}
	if len(replicas) == 0 {
		return all, nil
	}
	p, err := n.present()
	if err != nil {
		return nil, err
	}
	for _, id := range replicas {
		damage, err := n.replicaDamage(p, id)
		if err != nil {
			return nil, fmt.Errorf("look at replica %s: %w", id, err)
		}
		all = append(all, damage...)
	}
	return all, nil
}
