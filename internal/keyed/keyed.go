// Package keyed has a lock a name, and values that outlast the use of their key
// for a while.
package keyed

import "sync"

// Mutex is one mutex a key: two calls for one replica wait for each other,
// calls for different ones don't. The zero value is ready.
type Mutex struct {
	mu   sync.Mutex
	held map[string]*counted
}

type counted struct {
	sync.Mutex
	users int
}

// Lock returns the function that unlocks.
func (k *Mutex) Lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*counted{}
	}
	m := k.held[key]
	if m == nil {
		m = &counted{}
		k.held[key] = m
	}
	m.users++
	k.mu.Unlock()
	m.Lock()
	return func() {
		m.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if m.users--; m.users == 0 {
			delete(k.held, key)
		}
	}
}
