package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manifests are what the chart renders to, for those who install without Helm.
const manifests = "deploy/krunpod.yaml"

// admissionPolicy is the policy of the manifests and its binding, under a name of this test and for the pods of its namespace:
// other tests want such pods to come as far as the node.
func admissionPolicy(s *side) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv(enableEnv), manifests))
	if err != nil {
		s.Fatal(err)
	}
	var policy []string
	for _, doc := range strings.Split(string(text), "\n---\n") {
		if strings.Contains(doc, "\nkind: ValidatingAdmissionPolicy") {
			policy = append(policy, doc)
		}
	}
	if len(policy) != 2 {
		s.Fatalf("%s has %d documents of an admission policy, want 2", manifests, len(policy))
	}
	return strings.NewReplacer("krunpod-krun-pods", s.ns, "\n  validationActions:",
		"\n  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "+s.ns+"}}}\n  validationActions:",
	).Replace(strings.Join(policy, "\n---\n"))
}

const admitted = `
apiVersion: v1
kind: Pod
metadata: {generateName: p-}
spec:
  runtimeClassName: RUNTIME
  POD
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"]CONTAINER}]
`

// The chart's policy, on the API server: what is refused, in whose words, and what is not. Nothing is created (dry run).
func TestAdmissionPolicy(t *testing.T) {
	t.Parallel()
	s := newSide(t, "admission", "krun")
	s.apply(admissionPolicy(s))
	t.Cleanup(func() {
		s.ctx = context.WithoutCancel(s.ctx)
		s.must("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", s.ns)
	})
	pod := func(runtime, pod, container string) string {
		return s.fill(strings.NewReplacer("RUNTIME", runtime, "POD", pod, "CONTAINER", container).Replace(admitted))
	}
	create := func(pods ...string) (string, error) {
		_, errs, err := s.try(strings.Join(pods, "---"), "create", "--dry-run=server", "-f", "-")
		return errs, err
	}
	host := func(kind string) string { return "volumes: [{name: v, hostPath: {path: /dev/x, type: " + kind + "}}]" }
	mount := func(propagation string) string {
		return ", volumeMounts: [{name: v, mountPath: /v, mountPropagation: " + propagation + "}], securityContext: {privileged: true}"
	}
	refused := []struct{ name, pod, container, word string }{
		{"hostNetwork", "hostNetwork: true", "", "hostNetwork"},
		{"hostPID", "hostPID: true", "", "hostPID"},
		{"hostIPC", "hostIPC: true", "", "hostIPC"},
		{"raw block volume", "volumes: [{name: v, persistentVolumeClaim: {claimName: v}}]", ", volumeDevices: [{name: v, devicePath: /dev/v}]", "volumeDevices"},
		{"block device", host("BlockDevice"), ", volumeMounts: [{name: v, mountPath: /v}]", "devices and sockets of the host"},
		{"character device", host("CharDevice"), ", volumeMounts: [{name: v, mountPath: /v}]", "devices and sockets of the host"},
		{"socket", host("Socket"), ", volumeMounts: [{name: v, mountPath: /v}]", "devices and sockets of the host"},
		{"propagation to the host", host("Directory"), mount("Bidirectional"), "Bidirectional"},
		{"of an init container", host("Directory") + "\n  initContainers: [{name: i, image: IMAGE" + mount("Bidirectional") + "}]", "", "Bidirectional"},
	}
	allowed := []string{
		pod("krun", "hostNetwork: false", ""),
		pod("krun", host("Directory"), mount("HostToContainer")),
		pod("krun", "volumes: [{name: v, emptyDir: {}}]", ", volumeMounts: [{name: v, mountPath: /v}]"),
	}
	// A new policy takes a moment.
	s.until("the policy to hold", func() bool { _, err := create(pod("krun", "hostPID: true", "")); return err != nil })
	for _, r := range refused {
		errs, err := create(pod("krun", r.pod, r.container))
		if err == nil || !strings.Contains(errs, r.word) || !strings.Contains(errs, "not possible with this runtimeClassName") {
			t.Errorf("%s: not refused by name: %v: %s", r.name, err, errs)
		}
		allowed = append(allowed, pod("runc", r.pod, r.container))
	}
	if errs, err := create(allowed...); err != nil {
		t.Errorf("refused: %s", errs)
	}
}
