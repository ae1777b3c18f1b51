package installer

import (
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const path = "/etc/containerd/conf.d/10-krunpod.toml"

func TestImportIsTheOnlyChange(t *testing.T) {
	for _, tc := range []struct{ before, after string }{
		{"version = 3\n", "imports = [\"P\"]\nversion = 3\n"},
		{"# mine\n\n  version = 2 # two\r\n[grpc]\n", "# mine\n\nimports = [\"P\"]\n  version = 2 # two\r\n[grpc]\n"},
		{"imports = []\nversion = 3", "imports = [\"P\"]\nversion = 3"},
		{"version = 3\nimports = [ # none\n]\n", "version = 3\nimports = [\"P\" # none\n]\n"},
		{"version = 3\nimports = [\n  \"/a\", # a\n]\n", "version = 3\nimports = [\"P\", \n  \"/a\", # a\n]\n"},
		{"version = 3\n\"imports\" = ['/a']\n", "version = 3\n\"imports\" = [\"P\", '/a']\n"},
		{"root = \"\"\"\nimports = [\n\"\"\"\nversion = 3\n", "root = \"\"\"\nimports = [\n\"\"\"\nimports = [\"P\"]\nversion = 3\n"},
		{"version = 3\n[x]\nimports = [1]\n", "imports = [\"P\"]\nversion = 3\n[x]\nimports = [1]\n"},
	} {
		edited, inserted, err := addImport([]byte(tc.before), path)
		if want := strings.ReplaceAll(tc.after, "P", path); err != nil || string(edited) != want {
			t.Errorf("%q became %q, want %q (%v)", tc.before, edited, want, err)
			continue
		}
		back, err := removeImport(edited, inserted, path)
		if err != nil || string(back) != tc.before {
			t.Errorf("%q came back as %q (%v)", tc.before, back, err)
		}
	}
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{kindConfig, v3Config, importing, "version = 3\nimports = [ # none\n]\n", "imports.x = 1\nversion=3", "imports = 1\nversion = 3"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		edited, inserted, err := addImport(before, path)
		if err != nil {
			return
		}
		if len(edited) != len(before)+len(inserted) || strings.Count(inserted, "\n") > 1 {
			t.Fatalf("%q: %q was inserted", before, inserted)
		}
		var c struct {
			Imports []string `toml:"imports"`
		}
		if err := toml.Unmarshal(edited, &c); err == nil && (len(c.Imports) == 0 || c.Imports[0] != path) {
			t.Fatalf("imports are %q", c.Imports)
		}
		if back, err := removeImport(edited, inserted, path); err == nil && string(back) != string(before) {
			t.Fatalf("%q came back as %q", before, back)
		}
	})
}
