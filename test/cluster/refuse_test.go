package cluster

import (
	"strings"
	"testing"
)

// refusals are pods that a microVM cannot be or that say nonsense, and words of the one sentence that says so.
var refusals = []struct{ name, pod, container, words, annotation string }{
	{"network", "hostNetwork: true", "", "hostNetwork microVM", ""},
	{"pid", "hostPID: true", "", "hostPID microVM", ""},
	{"ipc", "hostIPC: true", "", "hostIPC microVM", ""},
	{"device", "volumes: [{name: v, hostPath: {path: /dev/kvm, type: CharDevice}}]",
		"volumeMounts: [{name: v, mountPath: /dev/kvm}]", "/dev/kvm device host microVM", ""},
	{"socket", "volumes: [{name: v, hostPath: {path: /run/kpnode/containerd/containerd.sock, type: Socket}}]",
		"volumeMounts: [{name: v, mountPath: /socket}]", "/run/kpnode/containerd/containerd.sock socket host microVM", ""},
	{"propagation", "volumes: [{name: v, hostPath: {path: /tmp}}]",
		"securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]", "Bidirectional microVM", ""},
	{"policy", "", "", `krun.dev/egress-allow "https" port`, `krun.dev/egress-allow: "api.example.org:https"`},
}

// What a microVM cannot be is said in an event of the pod. The pods are there together: most of it is waiting.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSide(t, "refused", "krun")
	var pods []string
	for _, r := range refusals {
		pods = append(pods, `
apiVersion: v1
kind: Pod
metadata: {name: `+r.name+`, annotations: {`+r.annotation+`}}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  `+r.pod+`
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], `+r.container+`}]
`)
	}
	defer s.turn()()
	s.apply(strings.Join(pods, "---"))
	for _, r := range refusals {
		s.eventSays(r.name, strings.Fields(r.words)...)
		if running := s.get("pod/"+r.name, "{.status.containerStatuses[0].state.running}{.status.containerStatuses[0].lastState.running}"); running != "" {
			t.Errorf("%s runs: %s", r.name, running)
		}
		s.must("delete", "pod", r.name, "--wait=false") // the kubelet would go on trying
	}
}
