package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// evaluate fills a template of kubectl's JSONPath (kubernetes.io/docs/reference/kubectl/jsonpath) with an object's fields, as far as
// tests need it: {.field}, {.escaped\.field}, [N], [*], [?(@.field=="text")], {range}…{end} and {"text"}.
func evaluate(object []byte, template string) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber() // as it is written, however large
	var root any
	if err := decoder.Decode(&root); err != nil {
		return "", err
	}
	var out strings.Builder
	if rest, err := fill(&out, root, template); err != nil || rest != "" {
		return "", fmt.Errorf("JSONPath %q, at %q: %v", template, rest, err)
	}
	return out.String(), nil
}

// fill writes a template until its end or the {end} of a range, and returns what follows.
func fill(out *strings.Builder, root any, template string) (rest string, err error) {
	for template != "" {
		text, after, found := strings.Cut(template, "{")
		out.WriteString(text)
		if !found {
			return "", nil
		}
		action, after, found := cutAction(after)
		if !found {
			return template, fmt.Errorf("a { without its }")
		}
		switch {
		case action == "end":
			return after, nil
		case strings.HasPrefix(action, `"`):
			text, err := strconv.Unquote(action)
			if err != nil {
				return template, err
			}
			out.WriteString(text)
		case strings.HasPrefix(action, "range "):
			elements, err := find(root, strings.TrimPrefix(action, "range "))
			if err != nil {
				return template, err
			}
			body := after
			// Its length is known once it was gone through; without an element that is for nothing.
			if after, err = fill(&strings.Builder{}, nil, body); err != nil {
				return after, err
			}
			for _, e := range elements {
				if _, err := fill(out, e, body); err != nil {
					return body, err
				}
			}
		default:
			found, err := find(root, action)
			if err != nil {
				return template, err
			}
			for i, v := range found {
				if i > 0 {
					out.WriteString(" ")
				}
				out.WriteString(written(v))
			}
		}
		template = after
	}
	return "", nil
}

// cutAction cuts at the } that is not within a quoted text.
func cutAction(text string) (action, after string, found bool) {
	quoted := false
	for i := range len(text) {
		switch {
		case text[i] == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case text[i] == '}' && !quoted:
			return text[:i], text[i+1:], true
		}
	}
	return "", "", false
}

func written(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, _ := json.Marshal(v) // it was JSON
	return string(text)
}

// find are the values at a path below v.
func find(v any, path string) ([]any, error) {
	values := []any{v}
	for path != "" {
		var step func(any) []any
		var err error
		switch path[0] {
		case '.':
			var name string
			name, path = cutName(path[1:])
			step = func(v any) []any { return field(v, name) }
		case '[':
			end := strings.Index(path, "]")
			if end < 0 {
				return nil, fmt.Errorf("a [ without its ]: %s", path)
			}
			if step, err = selection(path[1:end]); err != nil {
				return nil, err
			}
			path = path[end+1:]
		default:
			return nil, fmt.Errorf("neither . nor [ at %q", path)
		}
		var next []any
		for _, v := range values {
			next = append(next, step(v)...)
		}
		values = next
	}
	return values, nil
}

// cutName cuts a field's name off, in which a dot is written \. .
func cutName(path string) (name, rest string) {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '\\':
			i++
		case '.', '[':
			return strings.ReplaceAll(path[:i], `\`, ""), path[i:]
		}
	}
	return strings.ReplaceAll(path, `\`, ""), ""
}

func field(v any, name string) []any {
	if of, ok := v.(map[string]any); ok {
		if value, ok := of[name]; ok {
			return []any{value}
		}
	}
	return nil
}

// selection is what stands between [ and ].
func selection(text string) (func(any) []any, error) {
	if text == "*" {
		return func(v any) []any { list, _ := v.([]any); return list }, nil
	}
	if n, err := strconv.Atoi(text); err == nil {
		return func(v any) []any {
			if list, _ := v.([]any); n >= 0 && n < len(list) {
				return list[n : n+1]
			}
			return nil
		}, nil
	}
	path, want, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(text, "?(@"), ")"), "==")
	want, err := strconv.Unquote(want)
	if !ok || err != nil {
		return nil, fmt.Errorf("[%s] is not a selection that test/kube knows", text)
	}
	if _, err := find(nil, path); err != nil {
		return nil, err
	}
	return func(v any) (matching []any) {
		list, _ := v.([]any)
		for _, e := range list {
			if got, _ := find(e, path); len(got) == 1 && written(got[0]) == want {
				matching = append(matching, e)
			}
		}
		return matching
	}, nil
}
