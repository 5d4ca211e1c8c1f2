package main

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is aligned text with a heading.
type table struct {
	columns []column
	rows    []row
}

type column struct {
	name string
	drop int  // on a narrow terminal the column with the highest number goes first; 0 = stays
	cut  int  // of the last column: the ends of its cells go before others, down to this width; 0 = after them
	wrap bool // of the last column: no end goes, its cells get more lines; where no room is left beside, below the row
}

type row struct {
	cells   []string    // an empty one is shown as -
	colours map[int]int // by column
	below   string      // lines of their own under the row, indented
}

// gap is between columns.
const gap = 2

// write renders the table into at most width columns (0 = any): first columns
// are left out, then the ends of lines.
func (p *program) write(t table) error {
	shown := make([]int, len(t.columns))
	for i := range shown {
		shown[i] = i
	}
	moved := -1 // the column whose cells stand below the rows
	for p.terminal.width > 0 && t.narrowest(shown) > p.terminal.width {
		i := t.mostDispensable(shown)
		if i < 0 {
			break
		}
		if t.columns[shown[i]].wrap {
			moved = shown[i]
		}
		shown = slices.Delete(shown, i, i+1)
	}
	var b strings.Builder
	heading := make([]string, len(t.columns))
	for i, c := range t.columns {
		heading[i] = c.name
	}
	p.line(&b, t, row{cells: heading}, shown)
	for _, r := range t.rows {
		p.line(&b, t, r, shown)
		if moved >= 0 {
			p.below(&b, r.cells[moved])
		}
		p.below(&b, r.below)
	}
	return p.print(b.String())
}

// below writes text under a row, whole: its end is often what to do next.
func (p *program) below(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	const indent = 4
	for _, l := range p.wrapped(text, indent) {
		b.WriteString(p.paintOut(grey, strings.Repeat(" ", indent)+l) + "\n")
	}
}

func (p *program) line(b *strings.Builder, t table, r row, shown []int) {
	used := 0
	for k, i := range shown {
		cell := cmp.Or(r.cells[i], "-")
		last := k == len(shown)-1
		switch {
		case last && t.columns[i].wrap:
			lines := p.wrapped(cell, used)
			for j, l := range lines {
				lines[j] = p.paintOut(r.colours[i], l)
			}
			b.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", used)) + "\n")
			return
		case p.terminal.width > 0:
			cell = truncate(cell, max(p.terminal.width-used, 0))
		}
		b.WriteString(p.paintOut(r.colours[i], cell))
		if last {
			break // no blanks at the end of a line
		}
		pad := t.columnWidth(i) + gap - utf8.RuneCountInString(cell)
		b.WriteString(strings.Repeat(" ", max(pad, 0)))
		used += t.columnWidth(i) + gap
	}
	b.WriteByte('\n')
}

// fit shortens a line to the terminal.
func (p *program) fit(text string) string {
	if p.terminal.width == 0 {
		return text
	}
	return truncate(text, p.terminal.width)
}

func truncate(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "…"
}

func (t table) columnWidth(i int) int {
	w := utf8.RuneCountInString(t.columns[i].name)
	for _, r := range t.rows {
		w = max(w, utf8.RuneCountInString(r.cells[i]))
	}
	return w
}

func (t table) width(shown []int) (sum int) {
	for _, i := range shown {
		sum += t.columnWidth(i) + gap
	}
	return sum - gap
}

// narrowest is the width with the shown columns when the last one is cut.
func (t table) narrowest(shown []int) int {
	last := shown[len(shown)-1]
	if cut := t.columns[last].cut; cut > 0 {
		return t.width(shown) - max(t.columnWidth(last)-cut, 0)
	}
	return t.width(shown)
}

// fullWidth is the width with all columns.
func (t table) fullWidth() int {
	all := make([]int, len(t.columns))
	for i := range all {
		all[i] = i
	}
	return t.width(all)
}

// mostDispensable is the place in shown of the column to leave out, or -1.
func (t table) mostDispensable(shown []int) int {
	best, at := 0, -1
	for k, i := range shown {
		if d := t.columns[i].drop; d > best {
			best, at = d, k
		}
	}
	return at
}
