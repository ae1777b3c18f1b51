package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestPageIsWhatTheTablesSay(t *testing.T) {
	want, err := markdown(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, page))
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the tables and head.md say: run go run ./test/differences (%v)", page, err)
	}
}

func TestEveryLineOfATableIsOnThePage(t *testing.T) {
	text, err := markdown(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		data, err := os.ReadFile(filepath.Join(root, table.file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if key, _, ok := strings.Cut(line, " | "); ok && !strings.HasPrefix(line, "#") && !strings.Contains(text, "| `"+key+"` |") {
				t.Errorf("%s: %s is not there", table.file, key)
			}
		}
	}
}
