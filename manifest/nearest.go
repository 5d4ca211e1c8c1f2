package manifest

// nearest returns the known name that was probably meant by name: the same one,
// or the only one to reach by at most two slips of the keyboard.
func nearest(name string, known []string) string {
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

// slips is the Levenshtein distance of two short names.
func slips(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
