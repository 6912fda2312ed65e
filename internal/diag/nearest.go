package diag

import (
	"slices"
	"strings"
)

// Nearest returns the one of options that s most probably is a misspelling of, without regard to case.
// It reports false if none is near. Of equally near options it takes the first in alphabetical order.
func Nearest(s string, options []string) (string, bool) {
	const maxLength = 100
	if s == "" || len(s) > maxLength {
		return "", false
	}
	best, bestDistance := "", min(1+len(s)/3, 3)
	found := false
	for _, o := range slices.Sorted(slices.Values(options)) {
		if len(o) > maxLength || o == s {
			continue
		}
		d := distance(strings.ToLower(s), strings.ToLower(o))
		if d < bestDistance || d == bestDistance && !found {
			best, bestDistance, found = o, d, true
		}
	}
	return best, found
}

// distance is how many letters have to be added, dropped, changed or swapped with their neighbour to make b of a.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
