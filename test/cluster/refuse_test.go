package cluster

import "testing"

// What a microVM cannot be is said in an event of the pod.
func TestRefusals(t *testing.T) {
	s := newSide(t, "refused", "krun")
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		t.Run(field, func(t *testing.T) {
			own := *s
			own.T = t
			name := map[string]string{"hostNetwork": "network", "hostPID": "pid", "hostIPC": "ipc"}[field]
			own.apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  runtimeClassName: RUNTIME
  ` + field + `: true
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"]}]
`)
			own.eventSays(name, field, "microVM")
			own.must("delete", "pod", name, "--timeout=170s")
		})
	}
}
