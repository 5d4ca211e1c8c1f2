package rules

import "strings"

// DormantLine stands below a table's name in the text of iptables-save, which
// itself doesn't tell: nf_tables asks none of the rules of such a table.
const DormantLine = "# dormant: the kernel asks none of this table's rules"

// MarkDormant puts DormantLine into what iptables-save printed, for each of the tables.
func MarkDormant(text string, tables []string) string {
	for _, name := range tables {
		head := "*" + name + "\n"
		text = strings.Replace("\n"+text, "\n"+head, "\n"+head+DormantLine+"\n", 1)[1:]
	}
	return text
}

// IsDormant reports whether the marked text has the table, marked.
func IsDormant(text, table string) bool {
	return strings.Contains("\n"+text, "\n*"+table+"\n"+DormantLine+"\n")
}

// Used reports whether anything of ours is in the table.
func (t Table) Used() bool { return len(t.Chains)+len(t.Jumps) > 0 }
