package keyed

import (
	"iter"
	"maps"
	"time"
)

// LastsFor is how long a value stays that nobody uses any more: what is absent for
// a while goes on where it was.
const LastsFor = time.Hour

// Lasting is one value a key. The zero value is ready; it isn't safe for
// concurrent use.
type Lasting[K comparable, V any] struct {
	all map[K]*lasting[V]
}

type lasting[V any] struct {
	value V
	left  time.Time // when it was first found unused; zero = it is used
}

// Of is the key's value, which begins as first if there is none.
func (l *Lasting[K, V]) Of(key K, first func() V) *V {
	if l.all[key] == nil {
		if l.all == nil {
			l.all = map[K]*lasting[V]{}
		}
		l.all[key] = &lasting[V]{value: first()}
	}
	return &l.all[key].value
}

// Forget drops what nobody has used for longer than LastsFor; used says what
// somebody uses now.
func (l *Lasting[K, V]) Forget(used func(K) bool, now time.Time) {
	for key, v := range l.all {
		switch {
		case used(key):
			v.left = time.Time{}
		case v.left.IsZero():
			v.left = now
		case now.Sub(v.left) > LastsFor:
			delete(l.all, key)
		}
	}
}

// Len is the number of values.
func (l *Lasting[K, V]) Len() int { return len(l.all) }

// All are the values, in no order.
func (l *Lasting[K, V]) All() iter.Seq[V] {
	return func(yield func(V) bool) {
		for v := range maps.Values(l.all) {
			if !yield(v.value) {
				return
			}
		}
	}
}
