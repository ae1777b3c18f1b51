package compare

import (
	"slices"
	"testing"
)

func check(t *testing.T, table string, first, second Seen) (unknown, stale []string) {
	t.Helper()
	parsed, err := Parse(table)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Of("a").Check(first, map[string]Seen{"krun": second})
}

func TestDifferenceThatTheTableLacksIsALineForIt(t *testing.T) {
	unknown, stale := check(t, "", Seen{"a/x": "1", "a/y": "a | b\n", "a/same": "s"}, Seen{"a/x": "2", "a/z": "-", "a/same": "s"})
	want := []string{"krun: a/x | 1 | 2 |", `krun: a/y | "a | b\n" | - |`, `krun: a/z | - | "-" |`}
	if !slices.Equal(unknown, want) || len(stale) > 0 {
		t.Errorf("unknown %q, stale %q", unknown, stale)
	}
}

func TestTableExplainsByKeyAndBothValues(t *testing.T) {
	const table = "# comment\n\na/*/mount./.type | overlay | virtiofs | its own kernel\nb/x | 1 | 2 | another scope's\n"
	unknown, stale := check(t, table, Seen{"a/c/mount./.type": "overlay"}, Seen{"a/c/mount./.type": "virtiofs"})
	if len(unknown) > 0 || len(stale) > 0 {
		t.Errorf("unknown %q, stale %q", unknown, stale)
	}
	unknown, stale = check(t, table, Seen{"a/c/mount./.type": "overlay"}, Seen{"a/c/mount./.type": "9p"})
	if len(unknown) != 1 || len(stale) != 1 {
		t.Errorf("another value: unknown %q, stale %q", unknown, stale)
	}
	unknown, stale = check(t, table, Seen{"a/c/mount./.type": "overlay"}, Seen{"a/c/mount./.type": "overlay"})
	if len(unknown) > 0 || len(stale) != 1 {
		t.Errorf("no difference any more: unknown %q, stale %q", unknown, stale)
	}
}

func TestWildcardsAreTextAndNumbers(t *testing.T) {
	for _, c := range []struct {
		glob, text string
		want       bool
	}{
		{"a*c", "abbc", true}, {"a*c", "a\nc", true}, {"a*c", "abcd", false}, {"a.c", "abc", false},
		{"%d", "4096", true}, {"%d", "", false}, {"%d", "4k", false}, {`1\t%d max`, `1\t20 max`, true}, {"100%", "100%", true},
	} {
		if got := pattern(c.glob).MatchString(c.text); got != c.want {
			t.Errorf("%q matches %q: %v", c.glob, c.text, got)
		}
	}
}

func TestLineWithoutAReasonIsRefused(t *testing.T) {
	for _, table := range []string{"a | b | c", "a | b | c |  ", "nonsense"} {
		if _, err := Parse(table); err == nil {
			t.Errorf("%q was accepted", table)
		}
	}
}

func TestMeasurementsMayDifferByLessThanHalf(t *testing.T) {
	unknown, _ := check(t, "", Seen{"a/x~": "100", "a/y~": "100", "a/z": "100"}, Seen{"a/x~": "51", "a/y~": "49", "a/z": "99"})
	if want := []string{"krun: a/y~ | 100 | 49 |", "krun: a/z | 100 | 99 |"}; !slices.Equal(unknown, want) {
		t.Errorf("%q", unknown)
	}
}

func TestRowsKnowTheirSection(t *testing.T) {
	rows, err := Rows("# What it is.\n# KEY | UNDER A | UNDER B | REASON\na/x | 1 | 2 | r\n\n# One,\n# and on.\na/y | 1 | - | s | t\na/z | * | * | u\n")
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]string
	for _, r := range rows {
		got = append(got, [2]string{r.Section, r.Key + r.First + r.Second + r.Reason})
	}
	if want := [][2]string{{"", "a/x12r"}, {"One, and on.", "a/y1-s | t"}, {"One, and on.", "a/z**u"}}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
