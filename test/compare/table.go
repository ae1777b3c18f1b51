package compare

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Seen is what one runtime showed: values by key.
type Seen map[string]string

// absent stands in a table for a key that a runtime did not show.
const absent = "-"

// line is an expected difference. In key and in both values a * stands for any text, and %d for a number.
type line struct {
	number        int
	text          string
	key           *regexp.Regexp
	first, second *regexp.Regexp
}

// Table is the list of differences that have a reason.
type Table []line

// Row is a line of a table in its own words.
type Row struct {
	// Section is the comment above the line, of one or more lines up to a blank one.
	Section                    string
	Key, First, Second, Reason string

	number int
	text   string
}

// legend begins the comment that says what the columns are; it heads no section.
const legend = "KEY | "

// Rows reads a table: a line is KEY | FIRST | SECOND | REASON; what begins with # is a comment.
func Rows(text string) ([]Row, error) {
	var rows []Row
	var comment []string
	section := ""
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(l)
		if said, ok := strings.CutPrefix(l, "#"); ok {
			comment = append(comment, strings.TrimSpace(said))
			continue
		}
		if comment != nil {
			section = ""
			if !strings.HasPrefix(comment[len(comment)-1], legend) {
				section = strings.Join(comment, " ")
			}
			comment = nil
		}
		if l == "" {
			continue
		}
		columns := strings.SplitN(l, " | ", 4)
		if len(columns) != 4 || strings.TrimSpace(columns[3]) == "" {
			return nil, fmt.Errorf("line %d: %q is not KEY | FIRST | SECOND | REASON", i+1, l)
		}
		for j := range columns {
			columns[j] = strings.TrimSpace(columns[j])
		}
		rows = append(rows, Row{section, columns[0], columns[1], columns[2], columns[3], i + 1, l})
	}
	return rows, nil
}

// Parse reads a table to check by.
func Parse(text string) (Table, error) {
	rows, err := Rows(text)
	if err != nil {
		return nil, err
	}
	var t Table
	for _, r := range rows {
		t = append(t, line{r.number, r.text, pattern(r.Key), pattern(r.First), pattern(r.Second)})
	}
	return t, nil
}

func pattern(glob string) *regexp.Regexp {
	text := regexp.QuoteMeta(glob)
	text = strings.NewReplacer(regexp.QuoteMeta("*"), ".*", "%d", "[0-9]+").Replace(text)
	return regexp.MustCompile("^(?s:" + text + ")$")
}

// Of is the part of the table whose keys begin with a scope, up to a slash, and the lines' own text.
func (t Table) Of(scope string) Table {
	return slices.DeleteFunc(slices.Clone(t), func(l line) bool { return !strings.HasPrefix(l.text, scope+"/") })
}

// Check compares what a first runtime showed with what each of the others showed. It returns a line in the table's
// form for each difference that the table lacks, and names each line of the table that explains none.
func (t Table) Check(first Seen, others map[string]Seen) (unknown, stale []string) {
	used := map[int]bool{}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		for _, d := range differences(first, others[name]) {
			if i := slices.IndexFunc(t, d.explainedBy); i >= 0 {
				used[t[i].number] = true
			} else {
				unknown = append(unknown, fmt.Sprintf("%s: %s | %s | %s |", name, d.key, d.first, d.second))
			}
		}
	}
	for _, l := range t {
		if !used[l.number] {
			stale = append(stale, fmt.Sprintf("line %d: %s", l.number, l.text))
		}
	}
	return unknown, stale
}

// difference has its values as a table shows them.
type difference struct{ key, first, second string }

func (d difference) explainedBy(l line) bool {
	return l.key.MatchString(d.key) && l.first.MatchString(d.first) && l.second.MatchString(d.second)
}

func differences(first, second Seen) []difference {
	keys := maps.Clone(first)
	maps.Copy(keys, second)
	var all []difference
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		a, inFirst := first[key]
		b, inSecond := second[key]
		if inFirst != inSecond || !same(key, a, b) {
			all = append(all, difference{key, shown(a, inFirst), shown(b, inSecond)})
		}
	}
	return all
}

// nearly ends the key of a measurement: two that are less than half of the greater apart count as the same.
const nearly = "~"

func same(key, a, b string) bool {
	if a == b || !strings.HasSuffix(key, nearly) {
		return a == b
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && max(x, y)-min(x, y) < max(x, y)/2
}

// shown is a value in one column of one line.
func shown(value string, there bool) string {
	if !there {
		return absent
	}
	odd := func(r rune) bool { return r == '|' || r == utf8.RuneError || !unicode.IsPrint(r) }
	if value == absent || value == "" || strings.TrimSpace(value) != value || strings.ContainsFunc(value, odd) {
		return strconv.Quote(value)
	}
	return value
}
