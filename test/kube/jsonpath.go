package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/client-go/util/jsonpath"
)

// evaluate fills a template of kubectl's JSONPath (kubernetes.io/docs/reference/kubectl/jsonpath) with an object's fields.
func evaluate(object []byte, template string) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber() // as it is written, however large
	var root any
	if err := decoder.Decode(&root); err != nil {
		return "", err
	}
	path := jsonpath.New("template").AllowMissingKeys(true)
	if err := path.Parse(template); err != nil {
		return "", fmt.Errorf("JSONPath %q: %w", template, err)
	}
	var out strings.Builder
	// The library has no type for it: an element that is not there yet is no more an error here than a field.
	if err := path.Execute(&out, root); err != nil && strings.Contains(err.Error(), "array index out of bounds") {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("JSONPath %q: %w", template, err)
	}
	return out.String(), nil
}
