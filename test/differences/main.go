// Command differences writes docs/kubernetes.md, the page of what behaves differently from runc: what head.md says, and the tables
// by which the tests compare the two (test/cluster/differences.txt and test/e2e/differences.txt). Run it in the root of the tree:
//
//	go run ./test/differences
package main

import (
	_ "embed"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"krun.dev/krunpod/test/compare"
)

//go:embed head.md
var head string

// tables are the files, each with what heads its part of the page.
var tables = []struct{ file, head string }{
	{"test/cluster/differences.txt", "## Through kubectl"},
	{"test/e2e/differences.txt", "## In the container and through CRI"},
}

const page = "docs/kubernetes.md"

func main() {
	log.SetFlags(0)
	log.SetPrefix("differences: ")
	text, err := markdown(".")
	if err == nil {
		err = os.WriteFile(page, []byte(text), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// markdown is the page of the tree at root.
func markdown(root string) (string, error) {
	var b strings.Builder
	b.WriteString(head)
	for _, t := range tables {
		data, err := os.ReadFile(filepath.Join(root, t.file))
		if err != nil {
			return "", err
		}
		rows, err := compare.Rows(string(data))
		if err != nil {
			return "", fmt.Errorf("%s: %w", t.file, err)
		}
		fmt.Fprintf(&b, "\n%s\n\nFrom `%s`.\n", t.head, t.file)
		if len(rows) == 0 {
			b.WriteString("It has no line: the tests know no difference there.\n")
		}
		write(&b, rows)
	}
	return b.String(), nil
}

func write(b *strings.Builder, rows []compare.Row) {
	for i, r := range rows {
		if i == 0 || r.Section != rows[i-1].Section {
			if r.Section != "" {
				fmt.Fprintf(b, "\n%s\n", r.Section)
			}
			b.WriteString("\n| what | under runc | under Krunpod | why |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(r.Key), code(r.First), code(r.Second), cell(r.Reason))
	}
}

// code is a value as it stands in its table; - and * are words about a value rather than one.
func code(value string) string {
	switch value {
	case "-":
		return "not there"
	case "*":
		return "any"
	}
	return "`" + cell(value) + "`"
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
