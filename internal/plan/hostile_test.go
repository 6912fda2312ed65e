package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hako/internal/dockerfile"
	"hako/internal/plan"
)

// TestHostileFilesAreCheap plans small files that would cost a naive planner gigabytes or hours.
func TestHostileFilesAreCheap(t *testing.T) {
	t.Parallel()
	many := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		return b.String()
	}
	var pairs strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&pairs, " v%d=1", i)
	}
	const (
		grows    = "the plan of this Dockerfile grows beyond 256 MiB"
		wordGrow = "the variables of one word grow beyond 1 MiB"
	)
	for _, tt := range []struct{ name, text, want string }{
		{"a variable that doubles", "FROM scratch\nENV A=xxxxxxxx\n" + many(100, func(int) string { return "ENV A=$A$A" }), wordGrow},
		{"a variable used often", "FROM scratch\nENV A=" + strings.Repeat("x", 60_000) + "\n" + many(20, func(int) string { return "ENV B=" + strings.Repeat("$A", 20_000) }), wordGrow},
		{"a global variable that doubles", "ARG A=xxxxxxxx\n" + many(100, func(int) string { return "ARG A=$A$A" }) + "FROM scratch", wordGrow},
		{"many variables, many steps", "FROM scratch\nENV" + pairs.String() + "\n" + many(4500, func(i int) string { return fmt.Sprintf("ENV x%d=1\nUSER u", i/2) }), grows},
		{"a long history", "FROM scratch\nARG A=" + strings.Repeat("x", 60_000) + "\n" + many(9000, func(int) string { return `RUN ["x"]` }), grows},
		{"many ports", "FROM scratch\n" + many(9000, func(int) string { return "EXPOSE 0-65535" }), grows},
		{"many stages", "FROM scratch AS s0\n" + many(4000, func(i int) string { return fmt.Sprintf("FROM scratch AS s%d\nCOPY --from=s%d / /", i+1, i) }), ""},
		{"a tower of stages", "FROM scratch AS s0\n" + many(4000, func(i int) string { return fmt.Sprintf("FROM s%d AS s%d\nENV a%d=1", i, i+1, i) }), grows},
		{"names that resemble each other", "FROM scratch\n" + many(1800, func(i int) string {
			name := strings.Repeat("a", 1000)
			return fmt.Sprintf("ENV %s%d=1\nLABEL a=$%s%d", name, 1000+i, name, 5000+i)
		}), ""},
		{"many undefined variables", "FROM scratch\n" + many(30, func(i int) string {
			var b strings.Builder
			for j := range 9000 {
				fmt.Fprintf(&b, "$b%d", j)
			}
			return "ARG " + strings.ReplaceAll(b.String(), "$", " a") + fmt.Sprint(i) + "\nLABEL x=" + b.String()
		}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			f, err := dockerfile.Parse("D", []byte(tt.text))
			if err == nil {
				_, err = plan.Build(t.Context(), f, plan.Options{}, catalog{})
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			t.Logf("%v", time.Since(start))
		})
	}
}
