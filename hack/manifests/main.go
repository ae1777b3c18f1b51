// Command manifests decodes YAML manifests strictly as the types of Kubernetes: an unknown kind, an unknown or repeated field,
// or a value of the wrong type is an error. A module of its own, since nothing else of Krunpod needs these types.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admission "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	node "k8s.io/api/node/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{admission.AddToScheme, apps.AddToScheme, batch.AddToScheme,
		core.AddToScheme, discovery.AddToScheme, networking.AddToScheme, node.AddToScheme, rbac.AddToScheme, monitoring.AddToScheme, registration.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	failed, objects := false, 0
	for _, path := range os.Args[1:] {
		n, err := check(decoder, path)
		objects += n
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	if failed || objects == 0 {
		os.Exit(1)
	}
	fmt.Printf("%d objects in %d files\n", objects, len(os.Args)-1)
}

// check returns how many objects of a file are well-formed before the first that is not.
func check(decoder runtime.Decoder, path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	documents := yaml.NewYAMLReader(bufio.NewReader(f))
	for n := 0; ; {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		data, err := yaml.ToJSON(doc)
		if err != nil {
			return n, err
		}
		if string(data) == "null" {
			continue // only comments
		}
		// The document itself is decoded, not data: JSON no longer shows a repeated key.
		if _, _, err := decoder.Decode(doc, nil, nil); err != nil {
			return n, fmt.Errorf("object %d: %w", n+1, err)
		}
		n++
	}
}
