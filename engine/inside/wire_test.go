package inside

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWire(t *testing.T) {
	var pipe bytes.Buffer
	for _, r := range []Request{
		{[]string{"/check"}, 0},
		{[]string{"sh", "-c", "two\nlines", ""}, 1500 * time.Millisecond},
		{[]string{strings.Repeat("x", 131_000)}, time.Hour},
	} {
		if err := WriteRequest(&pipe, r); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadRequest(&pipe); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%v %.100v", err, got)
		}
	}
	for _, a := range []Answer{{Code: 1, Output: []byte("a\x00b")}, {Code: 137, TimedOut: true, Output: []byte{}}} {
		if err := WriteAnswer(&pipe, a); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadAnswer(&pipe); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%v %v", err, got)
		}
	}
	if err := WriteRequest(&pipe, Request{Command: []string{strings.Repeat("x", 300_000)}}); err == nil {
		t.Error("a command that no kernel takes is sent")
	}
}

// What a confused container writes is an error, never a large allocation or a panic.
func TestMalformedFrames(t *testing.T) {
	for _, frame := range []string{"", "\x00", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05ab", "\x00\x00\x00\x03a\x00b", "\x00\x00\x00\x01x", "\x00\x00\x00\x011"} {
		if r, err := ReadRequest(strings.NewReader(frame)); err == nil {
			t.Errorf("request %q: %v", frame, r)
		}
		if a, err := ReadAnswer(strings.NewReader(frame)); err == nil {
			t.Errorf("answer %q: %v", frame, a)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	long := strings.Repeat("0123456789", 100_000)
	if got := string(tail(io.MultiReader(strings.NewReader(long), strings.NewReader("the end")))); len(got) != MaxOutput || !strings.HasSuffix(got, "789the end") {
		t.Errorf("%d bytes", len(got))
	}
	if got := string(tail(strings.NewReader("short"))); got != "short" {
		t.Errorf("%q", got)
	}
}
