package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

// TestDamage: each kind of damage is named by what it is, and as long as
// nothing differs there is nothing to name.
func TestDamage(t *testing.T) {
	r := spec.Routing{Networks: []spec.NetworkAddressing{testNetwork(1, false)}}
	want, _, err := Render(r, testConfig)
	if err != nil {
		t.Fatal(err)
	}
	whole := want.String()
	lines := strings.Split(strings.TrimSuffix(whole, "\n"), "\n")
	flushed := func(keep func(table, line string) bool) string {
		table, out := "", ""
		for _, l := range lines {
			if l[0] == '*' {
				table = l[1:]
			}
			if l[0] != '-' && l[0] != ':' || keep(table, l) {
				out += l + "\n"
			}
		}
		return out
	}
	replaced := func(old, new string) string {
		t.Helper()
		if strings.Count(whole, old) != 1 {
			t.Fatalf("%q is there %d times", old, strings.Count(whole, old))
		}
		return strings.Replace(whole, old, new, 1)
	}
	const established = "-A DUNNAGE-TO -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"dunnage: known connections\" -j ACCEPT\n"
	const invalid = "-A DUNNAGE-TO -m conntrack --ctstate INVALID -m comment --comment \"dunnage: of no connection\" -j DROP\n"
	const forward = "-A FORWARD -m comment --comment \"dunnage: traffic of replicas\" -j DUNNAGE-FORWARD\n"
	const prerouting = "-A PREROUTING -m comment --comment \"dunnage: service addresses and published ports\" -j DUNNAGE-PREROUTING\n"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing": {whole, nil},
		"a rule in front that only says it is ours": {replaced(prerouting, "-A PREROUTING -m comment --comment \"dunnage: mine\" -j ACCEPT\n"+prerouting), []string{
			"jump nat: jump from PREROUTING behind '-m comment --comment \"dunnage: mine\" -j ACCEPT'",
		}},
		"all tables flushed": {flushed(func(_, line string) bool { return line[0] == ':' }), []string{
			"chain raw: chain DUNNAGE-RAW emptied",
			"jump raw: jump from PREROUTING gone",
			"chain filter: chains DUNNAGE-FORWARD, DUNNAGE-FROM, DUNNAGE-INPUT and 2 more emptied",
			"jump filter: jumps from INPUT, FORWARD, OUTPUT gone",
			"chain nat: chains DUNNAGE-OUTPUT, DUNNAGE-POSTROUTING, DUNNAGE-PREROUTING emptied",
			"jump nat: jumps from PREROUTING, OUTPUT, POSTROUTING gone",
		}},
		"a table gone": {flushed(func(table, _ string) bool { return table != "nat" }), []string{
			"chain nat: chains DUNNAGE-HAIRPIN, DUNNAGE-OUTPUT, DUNNAGE-POSTROUTING and 3 more gone",
			"jump nat: jumps from PREROUTING, OUTPUT, POSTROUTING gone",
		}},
		"a table dormant": {MarkDormant(whole, []string{"nat", "mangle"}), []string{"table nat: table dormant, so the kernel asks none of its rules"}},
		"a rule deleted":  {replaced(invalid, ""), []string{"chain filter: chain DUNNAGE-TO: rule '" + ruleOf(invalid) + "' missing"}},
		"a rule doubled":  {replaced(invalid, invalid+invalid), []string{"chain filter: chain DUNNAGE-TO: rule '" + ruleOf(invalid) + "' doubled"}},
		"a rule added":    {replaced(invalid, invalid+"-A DUNNAGE-TO -j DROP\n"), []string{"chain filter: chain DUNNAGE-TO: rule '-j DROP' added"}},
		"a rule moved":    {replaced(established+invalid, invalid+established), []string{"chain filter: chain DUNNAGE-TO: rules moved"}},
		"a chain added":   {replaced(":DUNNAGE-TO ", ":DUNNAGE-T - [0:0]\n:DUNNAGE-TO "), []string{"chain filter: chain DUNNAGE-T left over"}},
		"a jump deleted":  {replaced(forward, ""), []string{"jump filter: jump from FORWARD gone"}},
		"a jump doubled":  {replaced(forward, forward+forward), []string{"jump filter: jump from FORWARD doubled"}},
		"a redirection in front": {replaced(prerouting, "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.0.2.1\n"+prerouting), []string{
			"jump nat: jump from PREROUTING behind '-p tcp --dport 80 -j DNAT --to-destination 192.0.2.1'",
		}},
		"a block in front": {replaced(forward, "-A FORWARD -j DROP\n"+forward), nil},
		"another pool's jump": {replaced(forward, forward+strings.Replace(forward, "-m", "-d 10.9.0.0/16 -m", 1)), []string{
			"jump filter: jump from FORWARD left over: '-d 10.9.0.0/16 -m comment --comment \"dunnage: traffic of replicas\" -j DUNNAGE-FORWARD'",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			have := Parse(c.text)
			var got []string
			for _, d := range Damage(want, have) {
				got = append(got, fmt.Sprintf("%s %s", d.Kind, d.What))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("named\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if equal := Equal(want, have); equal != (len(got) == 0) {
				t.Errorf("equal: %v", equal)
			}
		})
	}
}

// ruleOf is the rule of a line that adds it.
func ruleOf(line string) string {
	_, rule, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "-A "), " ")
	return rule
}

// TestDamageIsBounded: ten thousand broken rules are told as briefly as ten.
func TestDamageIsBounded(t *testing.T) {
	want, have := Table{Name: "nat"}, Table{Name: "nat"}
	for i := range 10_000 {
		rule := strings.Repeat("x", 1000)
		name := fmt.Sprintf("DUNNAGE-%05d", i)
		want.Chains = append(want.Chains, Chain{name, []string{rule, "-j ACCEPT"}})
		have.Chains = append(have.Chains, Chain{name, []string{"-j ACCEPT"}})
	}
	all := Damage(Document{want}, Document{have})
	total := 0
	for _, d := range all {
		total += len(d.What)
	}
	if len(all) != namedChains+1 || total > 1000 {
		t.Errorf("%d lines of %d bytes: %v", len(all), total, all)
	}
}
