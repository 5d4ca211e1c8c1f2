package spec

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// A secret comes out by Reveal alone: not by any verb, log or encoder, nor from
// within what holds it.
func TestSecretValueCannotPrintItself(t *testing.T) {
	const clear = "hunter2-correct-horse"
	v := NewSecretValue([]byte(clear))
	type holder struct {
		V     SecretValue
		P     *SecretValue
		List  []SecretValue
		Map   map[string]SecretValue
		Any   any
		inner SecretValue
	}
	held := holder{v, &v, []SecretValue{v}, map[string]SecretValue{"a": v}, v, v}
	request := DeployRequest{Secrets: map[string]SecretValue{"a": v}}
	things := []any{
		v, &v, held, &held, held.List, held.Map, request,
		Delivery{Replica: "r", Files: []DeliveredFile{{Target: "/x", Value: v}}, Env: []DeliveredEnv{{"A", v}}},
		DeliveredFile{Value: v}, &DeliveredEnv{Value: v},
	}
	var out bytes.Buffer
	for _, thing := range things {
		for _, flags := range []string{"", "+", "#", " ", "-", "0", "#+", "30", ".3", "-40.2"} {
			for verb := range rune(128) {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", thing)
			}
		}
		fmt.Fprintln(&out, thing, fmt.Sprint(thing), fmt.Errorf("failed: %v %w", thing, errors.New(fmt.Sprint(thing))))
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).With("with", thing).WithGroup("g").Error("failed", "thing", thing, slog.Group("in", "thing", thing))
		}
		if b, err := json.Marshal(thing); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(thing); err == nil {
			out.Write(b)
		}
		_ = gob.NewEncoder(&out).Encode(thing) // it may refuse
	}
	text := out.String()
	if !strings.Contains(text, "[secret]") || len(text) < 10_000 {
		t.Fatalf("only %d bytes were printed", len(text))
	}
	for _, form := range []string{
		clear, clear[:8], clear[8:],
		hex.EncodeToString([]byte(clear))[:12], strings.ToUpper(hex.EncodeToString([]byte(clear)))[:12],
		base64.StdEncoding.EncodeToString([]byte(clear))[:12],
		"104 117 110 116", "0x68, 0x75", "0x68 0x75", "1101000 1110101", "150 165 156",
	} {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("%q came out: %q", form, text[max(0, i-60):i+60])
		}
	}
}

func TestSecretValueIsNotRead(t *testing.T) {
	var v SecretValue
	if err := json.Unmarshal([]byte(`"[secret]"`), &v); err == nil || v.Reveal() != nil {
		t.Error("a value was read from what stands in its place")
	}
}

func TestSecretValue(t *testing.T) {
	v := NewSecretValue([]byte("hunter2"))
	if !v.Equal(NewSecretValue([]byte("hunter2"))) || v.Equal(NewSecretValue([]byte("hunter3"))) || v.Equal(SecretValue{}) {
		t.Error("values don't compare as they should")
	}
	if v.Check() != nil || !errors.Is(SecretValue{}.Check(), ErrRefused) || !errors.Is(NewSecretValue(make([]byte, MaxSecret+1)).Check(), ErrRefused) {
		t.Error("sizes aren't checked")
	}
	b := v.Reveal()
	v.Clear()
	if !bytes.Equal(b, make([]byte, 7)) {
		t.Error("not cleared")
	}
}

func TestCheckSecretName(t *testing.T) {
	for _, good := range []string{"a", "db-password", "tls.key", "A_1", strings.Repeat("a", 128)} {
		if err := CheckSecretName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".hidden", "-x", "a/b", "a b", "a\n", "é", "a\x00", strings.Repeat("a", 129)} {
		if err := CheckSecretName(bad); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
