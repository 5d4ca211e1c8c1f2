package walk

import (
	"slices"

	"dunnage/spec"
)

// told is what makes a step another one than those told already: ways that
// differ in their backend only meet the same rules.
type told struct {
	where, rule, what string
	number            int
}

func (w *walker) tell(s spec.TraceStep) {
	s.Answer = s.Answer || w.answers
	key := told{s.Where, s.Rule, s.What, s.Number}
	if i, ok := w.told[key]; ok {
		w.trace.Steps[i].Maybe = w.trace.Steps[i].Maybe && s.Maybe
		return
	}
	w.told[key] = len(w.trace.Steps)
	w.trace.Steps = append(w.trace.Steps, s)
}

// unseen notes what may decide otherwise, once.
func (w *walker) unseen(what string) {
	if !slices.Contains(w.trace.Unseen, what) {
		w.trace.Unseen = append(w.trace.Unseen, what)
	}
}

func (w *walker) die(p *packet, f spec.Fate, reason string) {
	w.ends = append(w.ends, end{f, reason, p.maybe()})
}

// conclude says in one word and one line how it ended.
func (w *walker) conclude() {
	t := &w.trace
	slices.SortStableFunc(t.Reach, func(a, b spec.Arrival) int { return a.To.Compare(b.To) })
	if len(w.ends) == 0 {
		t.Fate = spec.FateArrives
		return
	}
	worst := w.ends[0]
	if len(t.Reach) == 0 { // where all may end it, the last takes what the others leave
		worst = w.ends[len(w.ends)-1]
	}
	unsure := false
	for _, e := range w.ends {
		unsure = unsure || e.maybe
		if worst.maybe && !e.maybe {
			worst = e
		}
	}
	t.Dies = worst.reason
	switch {
	case len(t.Reach) == 0:
		t.Fate = worst.fate
	case unsure:
		t.Fate = spec.FateMaybe
	default:
		t.Fate = spec.FatePartly
	}
}
