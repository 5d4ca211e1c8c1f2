package rules

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestRoundTrip: what iptables-save prints after iptables-restore is byte by
// byte what was rendered, in both backends and families, for the scenarios and
// for random routings. Each change goes from the former routing to the next,
// so Diff is tried too.
func TestRoundTrip(t *testing.T) {
	testenv.Host(t, func() {
		all := []spec.Routing{}
		for _, r := range scenarios() {
			all = append(all, r)
		}
		for seed := range 25 {
			all = append(all, routings.Example(seed))
		}
		for _, backend := range []string{"nft", "legacy"} {
			for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
				var have Document
				for i, r := range all {
					have = checkRoundTrip(t, program, i == 0, r, have)
				}
			}
		}
	})
}

func checkRoundTrip(t *testing.T, program string, first bool, r spec.Routing, have Document) Document {
	t.Helper()
	v4, v6, err := Render(r, testConfig)
	if err != nil {
		t.Fatal(err)
	}
	want := v4
	if strings.HasPrefix(program, "ip6") {
		want = v6
	}
	doc := ""
	if first {
		testenv.Run(t, program, "-N", UserChain)
		doc = want.String()
	}
	for _, table := range want {
		if !first {
			doc += Diff(table, have.Table(table.Name))
		}
	}
	restore := exec.Command(program+"-restore", "--noflush", "-w")
	restore.Stdin = strings.NewReader(doc)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s\n%s", program, err, out, doc)
	}
	saved := testenv.Run(t, program+"-save")
	for _, table := range want {
		if got, want := tableText(saved, table.Name), (Document{table}).String(); got != want {
			t.Fatalf("%s -t %s saved\n%s\nrendered\n%s", program, table.Name, got, want)
		}
	}
	return Parse(saved)
}

// tableText is one table as saved, without comment lines, built-in chains and
// the operator's chain. It doesn't use Parse, which is under test.
func tableText(saved, table string) string {
	_, text, _ := strings.Cut(saved, "*"+table+"\n")
	text, _, _ = strings.Cut(text, "COMMIT\n")
	lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(l string) bool {
		return strings.HasPrefix(l, "#") || strings.HasPrefix(l, ":") && !strings.HasPrefix(l, ":"+Prefix) || strings.HasPrefix(l, ":"+UserChain+" ")
	})
	return "*" + table + "\n" + strings.Join(lines, "") + "COMMIT\n"
}

// TestOurs: what others have made isn't ours, nor is an empty chain that only
// their rule keeps.
func TestOurs(t *testing.T) {
	have := Parse("*nat\n:PREROUTING ACCEPT [0:0]\n:DUNNAGE-HAIRPIN - [0:0]\n:DUNNAGE-P-gone - [0:0]\n:DUNNAGE-P-left - [0:0]\n" +
		"-A PREROUTING -s 9.9.9.9/32 -j DUNNAGE-P-gone\n-A PREROUTING -s 9.9.9.9/32 -j DUNNAGE-HAIRPIN\n" +
		"-A PREROUTING -m comment --comment \"dunnage: x\" -j DUNNAGE-HAIRPIN\nCOMMIT\n")
	nat := have.Ours(Document{{Name: "nat", Chains: []Chain{{Name: "DUNNAGE-HAIRPIN"}}}}).Table("nat")
	if len(nat.Jumps) != 1 || !nat.Jumps[0].ours() {
		t.Errorf("jumps of ours are %v, want the one with our comment", nat.Jumps)
	}
	var names []string
	for _, c := range nat.Chains {
		names = append(names, c.Name)
	}
	if want := []string{"DUNNAGE-HAIRPIN", "DUNNAGE-P-left"}; !slices.Equal(names, want) {
		t.Errorf("chains of ours are %v, want %v: the one that nothing leads to is ours to delete", names, want)
	}
}
