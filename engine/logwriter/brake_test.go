package logwriter

import (
	"testing"
	"time"
)

// TestBrake: a burst is read as it comes, a flood at the rate, and a pause gives
// the burst back.
func TestBrake(t *testing.T) {
	var b brake
	now := time.Now()
	read := func(total int, each time.Duration) (over time.Duration) {
		began := now
		for range total / readSize {
			now = now.Add(each)
			now = now.Add(b.pause(readSize, now))
		}
		return now.Sub(began)
	}
	if over := read(burst-readSize, 0); over != 0 {
		t.Errorf("a burst takes %s", over)
	}
	if over, want := read(10*rate, 100*time.Microsecond), 10*time.Second; over < want-rest || over > want+want/100 {
		t.Errorf("ten seconds' worth of a flood take %s", over)
	}
	now = now.Add(time.Second)
	if over := read(burst-readSize, 0); over != 0 {
		t.Errorf("the next burst takes %s", over)
	}
	if over, want := read(rate, 2*time.Millisecond), rate/readSize*2*time.Millisecond; over != want {
		t.Errorf("below the rate: %s for %s", over, want)
	}
}
