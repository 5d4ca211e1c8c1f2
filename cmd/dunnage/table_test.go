package main

import (
	"bytes"
	"testing"
)

// TestTableCutsBeforeItDrops: the ends of a last column that may be cut go
// before whole columns do.
func TestTableCutsBeforeItDrops(t *testing.T) {
	narrow := table{
		columns: []column{{name: "RELEASE"}, {name: "AGE", drop: 1}, {name: "IMAGES", cut: 8}},
		rows:    []row{{cells: []string{"1*", "3m", "db=postgres:17 web=shop:1.2"}}},
	}
	for width, want := range map[int]string{
		0:  "RELEASE  AGE  IMAGES\n1*       3m   db=postgres:17 web=shop:1.2\n",
		40: "RELEASE  AGE  IMAGES\n1*       3m   db=postgres:17 web=shop:1…\n",
		24: "RELEASE  AGE  IMAGES\n1*       3m   db=postgr…\n",
		22: "RELEASE  AGE  IMAGES\n1*       3m   db=post…\n",
		20: "RELEASE  IMAGES\n1*       db=postgre…\n",
	} {
		looksLike(t, narrow, width, want)
	}
}

// TestTableWraps: a last column that wraps loses no word, beside the others
// where there is room and below the row where there is none.
func TestTableWraps(t *testing.T) {
	items := table{
		columns: []column{{name: "NAME"}, {name: "INODES", drop: 2}, {name: "WHY", drop: 1, cut: leastText, wrap: true}},
		rows: []row{{
			cells: []string{"a-rather-long-name", "300", "no kept release, replica or operation needs it"},
			below: "next: `dunnage logs -p shop web` shows what it writes",
		}},
	}
	for width, want := range map[int]string{
		0:  "NAME                INODES  WHY\na-rather-long-name  300     no kept release, replica or operation needs it\n    next: `dunnage logs -p shop web` shows what it writes\n",
		60: "NAME                INODES  WHY\na-rather-long-name  300     no kept release, replica or\n                            operation needs it\n    next: `dunnage logs -p shop web` shows what it writes\n",
		40: "NAME                WHY\na-rather-long-name  no kept release,\n                    replica or operation\n                    needs it\n    next: `dunnage logs -p shop web`\n    shows what it writes\n",
		36: "NAME\na-rather-long-name\n    no kept release, replica or\n    operation needs it\n    next: `dunnage logs -p shop web`\n    shows what it writes\n",
	} {
		looksLike(t, items, width, want)
	}
}

// looksLike checks what the table is on a terminal of so many columns.
func looksLike(t *testing.T, shown table, width int, want string) {
	t.Helper()
	var out bytes.Buffer
	p := program{stdout: &out, terminal: terminal{width: width}}
	if err := p.write(shown); err != nil || out.String() != want {
		t.Errorf("%d columns:\n%swant\n%s%v", width, out.String(), want, err)
	}
}
