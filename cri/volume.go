package cri

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/sandbox"
)

// The kubelet's names for kinds of volumes (k8s.io/kubernetes/pkg/volume: plugin names), as they stand in paths.
const (
	configMap   = "kubernetes.io~configmap"
	secret      = "kubernetes.io~secret"
	projected   = "kubernetes.io~projected"
	downwardAPI = "kubernetes.io~downward-api"
	emptyDir    = "kubernetes.io~empty-dir"
)

// volumeOf finds of which kind, and by which name in the pod, the kubelet has made the volume that source is the
// directory of: ROOT/pods/UID/volumes/KIND/NAME. The pod's uid decides, not where the kubelet's root is: each
// distribution has its own, and the volume of another pod, as a hostPath, is a directory like any other. A subPath is
// elsewhere (ROOT/pods/UID/volume-subpaths).
func volumeOf(annotations map[string]string, source string) (kind, name string, ok bool) {
	uid := annotations[annotationSandboxUID]
	elements := strings.Split(filepath.Clean(source), "/")
	if uid == "" || len(elements) < 5 {
		return "", "", false
	}
	e := elements[len(elements)-5:]
	if e[0] != "pods" || e[1] != uid || e[2] != "volumes" {
		return "", "", false
	}
	return e[3], e[4], true
}

// WrittenVolume returns the name of the volume that m shows, if the kubelet writes it while the pod runs and the container
// may not: a ConfigMap, a Secret, projected sources or the downward API.
func WrittenVolume(annotations map[string]string, m specs.Mount) (name string, ok bool) {
	kind, name, ok := volumeOf(annotations, m.Source)
	if !ok || !slices.Contains(m.Options, "ro") && !slices.Contains(m.Options, "rro") {
		return "", false
	}
	switch kind {
	case configMap, secret, projected, downwardAPI:
		return name, true
	}
	return "", false
}

// EmptyDir is the emptyDir of the pod of which m shows all or, with a subPath, a part, which the kubelet has bound to
// ROOT/pods/UID/volume-subpaths/NAME/CONTAINER/INDEX. The volume NAME there may be of another kind: then there is nothing at
// the directory that EmptyDir says.
func EmptyDir(annotations map[string]string, m specs.Mount) (_ sandbox.EmptyDir, ok bool) {
	if kind, name, ok := volumeOf(annotations, m.Source); ok {
		return sandbox.EmptyDir{Name: name, Dir: m.Source}, kind == emptyDir
	}
	e := strings.Split(filepath.Clean(m.Source), "/")
	n := len(e)
	uid := annotations[annotationSandboxUID]
	if uid == "" || n < 6 || e[n-6] != "pods" || e[n-5] != uid || e[n-4] != "volume-subpaths" {
		return sandbox.EmptyDir{}, false
	}
	dir := filepath.Join(strings.Join(e[:n-4], "/"), "volumes", emptyDir, e[n-3])
	return sandbox.EmptyDir{Name: e[n-3], Dir: dir, Part: strings.Join(e[n-3:], ":"), PartSource: m.Source}, true
}
