package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	// unknownSeconds is taken for a spec that no earlier report has.
	unknownSeconds = 10
	// groupSeconds is where a group is cut: what one broken node can cost, and how late the last node may be.
	groupSeconds = 90
)

// group is what one run of the suite runs.
type group struct {
	name    string
	specs   []spec
	seconds float64 // expected
}

func (g group) tests() []string {
	var names []string
	for _, s := range g.specs {
		names = append(names, s.name)
	}
	return names
}

// groups puts together what the suite puts together, cut where it is expected to take too long.
func groups(specs []spec, expected map[string]float64) []group {
	var all []group
	open := map[string]int{} // container: the group that takes its next spec
	parts := map[string]int{}
	for _, s := range specs {
		seconds, ok := expected[s.name]
		if !ok {
			seconds = unknownSeconds
		}
		i, ok := open[s.container]
		if !ok || all[i].seconds+seconds > groupSeconds {
			i = len(all)
			open[s.container] = i
			parts[s.container]++
			all = append(all, group{name: fmt.Sprintf("%s-%d", slug(s.container), parts[s.container])})
		}
		all[i].specs = append(all[i].specs, s)
		all[i].seconds += seconds
	}
	return all
}

// longestFirst orders the groups so that no node waits long for another one in the end.
func longestFirst(all []group) {
	slices.SortStableFunc(all, func(a, b group) int { return cmp.Compare(b.seconds, a.seconds) })
}

var notWord = regexp.MustCompile(`[^A-Za-z0-9]+`)

// slug makes a file's name of a text.
func slug(text string) string { return strings.Trim(notWord.ReplaceAllString(text, "-"), "-") }

// exactly is a regular expression that only this text matches.
func exactly(text string) string { return "^" + regexp.QuoteMeta(text) + "$" }
