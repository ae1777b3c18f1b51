package cri

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/sandbox"
)

func TestVolumesThatTheKubeletWritesAreKnownByKindAndPod(t *testing.T) {
	pod := map[string]string{annotationSandboxUID: "uid-1"}
	for source, want := range map[string]string{
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~configmap/settings":       "settings",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~secret/token":             "token",
		"/var/lib/k0s/kubelet/pods/uid-1/volumes/kubernetes.io~projected/all":        "all",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~downward-api/labels/":     "labels",
		"/var/lib/kubelet/pods/uid-2/volumes/kubernetes.io~configmap/settings":       "",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~configmap/settings/..a":   "",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~empty-dir/scratch":        "",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/pvc/mount":            "",
		"/var/lib/kubelet/pods/uid-1/volume-subpaths/settings/main/0":                "",
		"/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~configmap/settings/../..": "",
		"/volumes/kubernetes.io~secret/x":                                            "",
	} {
		name, ok := WrittenVolume(pod, specs.Mount{Source: source, Options: []string{"rbind", "ro"}})
		if name != want || ok != (want != "") {
			t.Errorf("%s: %q, %v, want %q", source, name, ok, want)
		}
	}
	// What may be written to must be the volume itself.
	written := specs.Mount{Source: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~secret/token"}
	for option, want := range map[string]bool{"ro": true, "rro": true, "rw": false} {
		written.Options = []string{"rbind", option}
		if _, ok := WrittenVolume(pod, written); ok != want {
			t.Errorf("a mount with %s: %v, want %v", option, ok, want)
		}
	}
	// A container alone has no pod whose volume it could be.
	if name, ok := WrittenVolume(nil, specs.Mount{Source: "/pods//volumes/kubernetes.io~secret/x", Options: []string{"ro"}}); ok {
		t.Errorf("a container without a pod has the volume %q", name)
	}
}

func TestEmptyDirsAreKnownWholeAndInPart(t *testing.T) {
	const pod = "/var/lib/kubelet/pods/uid-1/"
	const dir = pod + "volumes/kubernetes.io~empty-dir/scratch"
	const part = pod + "volume-subpaths/scratch/main/0"
	for source, want := range map[string]sandbox.EmptyDir{
		dir:  {Name: "scratch", Dir: dir},
		part: {Name: "scratch", Dir: dir, Part: "scratch:main:0", PartSource: part},
		pod + "volumes/kubernetes.io~configmap/scratch":                     {},
		"/var/lib/kubelet/pods/uid-2/volumes/kubernetes.io~empty-dir/other": {},
		"/var/lib/kubelet/pods/uid-2/volume-subpaths/scratch/main/0":        {},
		"/scratch": {},
	} {
		got, ok := EmptyDir(map[string]string{annotationSandboxUID: "uid-1"}, specs.Mount{Source: source})
		if ok != (want != sandbox.EmptyDir{}) || ok && got != want {
			t.Errorf("%s: %+v, %v", source, got, ok)
		}
	}
}
