package manifest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestBounds: hostile files end soon, in little memory, with a place.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, text := range map[string]string{
		"aliases of aliases":  bomb(10, 12),
		"aliases of mappings": mergeBomb(12),
		"a long text often":   "x-a: &a " + long + "\nservices:\n  w: {image: x, command: [" + strings.Repeat("*a, ", 3000) + "]}\n",
		"many values":         "services:\n  w: {image: x, command: [" + strings.Repeat("a, ", 200_000) + "]}\n",
		"deep":                "services: " + strings.Repeat("[", 5000),
		"deep mapping":        strings.Repeat("{a: ", 5000),
		"many documents":      strings.Repeat("---\na: 1\n", 10_000),
		"many services":       manyServices(1000),
		"many unknown keys":   manyKeys(20_000),
		"ports":               "services:\n  w: {image: x, ports: [" + strings.Repeat("'1-65535:1-65535', ", 1000) + "]}\n",
		"expose":              "services:\n  w: {image: x, expose: [" + strings.Repeat("1-65535, ", 1000) + "]}\n",
		"variables":           "services:\n  w: {image: \"" + strings.Repeat("${A:-", 5000) + strings.Repeat("}", 5000) + "\"}\n",
		"variables in a row":  "services:\n  w: {image: \"" + strings.Repeat("${A:-x}", 50_000) + "\"}\n",
		"variables in x-":     "x-a: \"" + strings.Repeat("${A:-", 5000) + strings.Repeat("}", 5000) + "\"\nservices: {w: {image: x}}\n",
		"extends of one":      extendsOne(1000, 500),
		"a chain of extends":  extendsChain(1000),
		"long keys":           "services:\n  " + long + ": {image: x}\n",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Load(t.Context(), Options{Files: []string{"-"}, Stdin: strings.NewReader(text), WorkingDir: "/nowhere"})
			runtime.ReadMemStats(&after)
			var list Errors
			if !errors.As(err, &list) {
				t.Fatalf("not refused with a place: %v", err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 300 {
				t.Errorf("allocated %d MiB in all", used)
			}
			if len(err.Error()) > 1<<20 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
			t.Logf("%v, %d MiB allocated: %.200s", time.Since(start), (after.TotalAlloc-before.TotalAlloc)>>20, err)
		})
	}
}

// bomb makes width^levels values of a few lines.
func bomb(width, levels int) string {
	var b strings.Builder
	b.WriteString("x-0: &v0 [x]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x-%d: &v%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*v%d, ", i-1), width))
	}
	fmt.Fprintf(&b, "services:\n  w: {image: x, command: *v%d}\n", levels)
	return b.String()
}

func mergeBomb(levels int) string {
	var b strings.Builder
	b.WriteString("x-0: &v0 {a: 1}\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x-%d: &v%d {<<: [%s]}\n", i, i, strings.Repeat(fmt.Sprintf("*v%d, ", i-1), 20))
	}
	return b.String()
}

func manyServices(n int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d: {image: x, depends_on: [s%d]}\n", i, (i+1)%n)
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	b.WriteString("services:\n  w:\n    image: x\n")
	for i := range n {
		fmt.Fprintf(&b, "    k%d: x\n", i)
	}
	return b.String()
}

func extendsOne(services, variables int) string {
	var b strings.Builder
	b.WriteString("services:\n  base:\n    image: x\n    environment:\n")
	for i := range variables {
		fmt.Fprintf(&b, "      V%d: x\n", i)
	}
	for i := range services {
		fmt.Fprintf(&b, "  s%d: {extends: base}\n", i)
	}
	return b.String()
}

func extendsChain(n int) string {
	var b strings.Builder
	b.WriteString("services:\n  s0: {image: x}\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d: {extends: s%d}\n", i+1, i)
	}
	return b.String()
}

func TestHostNameLengths(t *testing.T) {
	label := strings.Repeat("a", 63)
	for name, ok := range map[string]bool{
		label:                true,
		label + "." + label:  true,
		label + "a":          false,
		"web." + label + "a": false,
		strings.Repeat(label[:31]+".", 7) + "end": true,
		strings.Repeat(label[:31]+".", 8):         false,
	} {
		if err := checkHostname(name); (err == nil) != ok {
			t.Errorf("%q of %d characters: %v", name, len(name), err)
		}
	}
}
