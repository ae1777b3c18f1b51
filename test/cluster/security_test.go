package cluster

import "testing"

const confined = `
apiVersion: v1
kind: Pod
metadata: {name: confined}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsUser: 1000
    runAsGroup: 2000
    fsGroup: 3000
    supplementalGroups: [4000]
    runAsNonRoot: true
    seccompProfile: {type: RuntimeDefault}
    sysctls: [{name: net.ipv4.ip_local_port_range, value: "20000 30000"}]
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "exec 2>&1; id; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; touch /x; echo $?; stat -c '%a %u %g' /v; cat /proc/sys/net/ipv4/ip_local_port_range; touch /v/x; stat -c '%u %g' /v/x"]
    volumeMounts: [{name: v, mountPath: /v}]
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
---
apiVersion: v1
kind: Pod
metadata: {name: users}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  hostUsers: false
  automountServiceAccountToken: false
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "id -u; awk '{print $1, $2 != 0, $3}' /proc/self/uid_map; touch /x && stat -c %u /x"]
---
apiVersion: v1
kind: Pod
metadata: {name: privileged}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  shareProcessNamespace: true
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "mount -t tmpfs t /tmp && echo mounted; grep ^CapEff /proc/self/status; until p=$(ps | awk '/[:] neighbour/ {print $1}'); [ -e \"/proc/$p/root/ready\" ]; do sleep 1; done; kill $p; echo told"]
    securityContext: {privileged: true}
  - {name: neighbour, image: IMAGE, command: [sh, -c, ": neighbour; trap 'exit 0' TERM; touch /ready; while :; do sleep 1; done"]}
---
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  containers:
  - name: c
    image: IMAGE
    command: [id]
    securityContext: {runAsNonRoot: true}
`

// The fields of a security context.
func TestSecurityContext(t *testing.T) {
	under(t, "security", func(s *side) {
		end := s.turn()
		s.apply(confined)
		for _, pod := range []string{"confined", "users"} {
			s.see(pod+".phase", s.ended(pod))
			s.see(pod+".log", s.log(pod, ""))
		}
		s.see("privileged.phase", s.ended("privileged"))
		end()
		s.see("privileged.log", s.log("privileged", "c"))
		s.eventSays("root", "runAsNonRoot")
	})
}
