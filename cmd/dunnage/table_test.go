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
		var out bytes.Buffer
		p := program{stdout: &out, terminal: terminal{width: width}}
		if err := p.write(narrow); err != nil || out.String() != want {
			t.Errorf("%d columns:\n%swant\n%s%v", width, out.String(), want, err)
		}
	}
}
