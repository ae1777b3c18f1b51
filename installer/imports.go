package installer

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// configVersion is the version that a configuration of containerd says it has. 1 is one that says nothing.
func configVersion(config []byte) (int, error) {
	var c struct {
		Version *int `toml:"version"`
	}
	if err := toml.Unmarshal(config, &c); err != nil {
		return 0, err
	}
	if c.Version == nil {
		return 1, nil
	}
	return *c.Version, nil
}

// imports reports whether a configuration, which is the file at, imports path already. The file itself is asked: what
// `containerd config dump` prints begins with containerd's default, /etc/containerd/conf.d/*.toml, which no file follows that does
// not name it.
func imports(config []byte, at, path string) (bool, error) {
	var c struct {
		Imports []string `toml:"imports"`
	}
	if err := toml.Unmarshal(config, &c); err != nil {
		return false, fmt.Errorf("imports of %s: %w", at, err)
	}
	for _, pattern := range c.Imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(at), pattern)
		}
		if ok, err := filepath.Match(pattern, path); err == nil && ok {
			return true, nil
		}
	}
	return false, nil
}

// runtimePath is where a drop-in has the runtime's shim, empty if it is none of the installer's.
func runtimePath(dropIn []byte) string {
	var c struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Path string `toml:"runtime_path"`
				} `toml:"runtimes"`
			} `toml:"containerd"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(dropIn, &c); err != nil {
		return ""
	}
	for _, plugin := range c.Plugins {
		for _, runtime := range plugin.Containerd.Runtimes {
			return runtime.Path
		}
	}
	return ""
}

// addImport adds path to the imports of a configuration of containerd, and returns the new configuration and the text that
// was inserted into the old one; nothing else of it changes.
func addImport(config []byte, path string) (edited []byte, inserted string, err error) {
	at, inserted, err := importPlace(config, path)
	if err != nil {
		return nil, "", err
	}
	edited = append(append(append([]byte{}, config[:at]...), inserted...), config[at:]...)
	if err := onlyImports(config, edited, path); err != nil {
		return nil, "", err
	}
	return edited, inserted, nil
}

// removeImport takes the text out that addImport inserted, from a configuration that may have changed since.
func removeImport(config []byte, inserted, path string) ([]byte, error) {
	if n := bytes.Count(config, []byte(inserted)); n != 1 {
		return nil, fmt.Errorf("%q is there %d times, not once: remove %s from imports by hand", inserted, n, path)
	}
	edited := bytes.Replace(config, []byte(inserted), nil, 1)
	if err := onlyImports(edited, config, path); err != nil {
		return nil, err
	}
	return edited, nil
}

// importPlace finds where to insert what: at the beginning of the imports that are there, or as a line before the version.
func importPlace(config []byte, path string) (at int, text string, err error) {
	p := unstable.Parser{}
	p.Reset(config)
	version := -1
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			break // the first table: what follows is not at the top
		}
		it := e.Key()
		if !it.Next() || !it.IsLast() {
			continue
		}
		key := it.Node()
		switch string(key.Data) {
		case "imports":
			if e.Value().Kind != unstable.Array {
				return 0, "", errors.New("imports is no list")
			}
			open := bytes.IndexByte(config[key.Raw.Offset+key.Raw.Length:], '[')
			if open < 0 {
				return 0, "", errors.New("imports is no list")
			}
			text := strconv.Quote(path)
			if e.Value().Child() != nil && hasElement(e.Value()) {
				text += ", "
			}
			return int(key.Raw.Offset+key.Raw.Length) + open + 1, text, nil
		case "version":
			version = bytes.LastIndexByte(config[:key.Raw.Offset], '\n') + 1
		}
	}
	if err := p.Error(); err != nil {
		return 0, "", err
	}
	if version < 0 {
		return 0, "", errors.New("it has no version at its top")
	}
	return version, "imports = [" + strconv.Quote(path) + "]\n", nil
}

// hasElement reports whether an array has a value: comments are children too.
func hasElement(array *unstable.Node) bool {
	for it := array.Children(); it.Next(); {
		if it.Node().Kind != unstable.Comment {
			return true
		}
	}
	return false
}

// onlyImports checks that after says what before says, and that its imports begin with path and go on with before's.
func onlyImports(before, after []byte, path string) error {
	var a, b map[string]any
	if err := toml.Unmarshal(before, &a); err != nil {
		return err
	}
	if err := toml.Unmarshal(after, &b); err != nil {
		return fmt.Errorf("with %s in imports it could not be read: %w", path, err)
	}
	was, _ := a["imports"].([]any)
	is, _ := b["imports"].([]any)
	delete(a, "imports")
	delete(b, "imports")
	if !reflect.DeepEqual(append([]any{path}, was...), is) || !reflect.DeepEqual(a, b) {
		return fmt.Errorf("%s cannot be added to or taken from its imports without other changes: do it by hand", path)
	}
	return nil
}
