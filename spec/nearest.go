package spec

// Nearest returns the known name that was probably meant by name: the same one,
// or the one to reach by the fewest slips of the keyboard, at most two; "" where
// there is none.
func Nearest(name string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		d := slips(name, k)
		switch {
		case d == 0:
			return k
		case d < at && d*3 <= len(k)+1:
			best, at = k, d
		}
	}
	return best
}

// longestName bounds what is compared: its square is what a comparison costs.
const longestName = 40

// slips counts the characters that were left out, added, mistaken or swapped
// with the next one between two names.
func slips(a, b string) int {
	if len(a) > longestName || len(b) > longestName {
		return longestName
	}
	var above, row, next [longestName + 1]int // of the table of Levenshtein's distances
	for j := range len(b) {
		row[j+1] = j + 1
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			mistaken := row[j] + 1
			if a[i] == b[j] {
				mistaken = row[j]
			}
			next[j+1] = min(mistaken, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], above[j-1]+1)
			}
		}
		above, row = row, next
	}
	return row[len(b)]
}
