package cluster

import (
	"strings"
	"testing"
)

// fields has a container for each field of a security context that TestSecurityContext has not. The first one writes the profile
// where the kubelet looks for it.
const fields = `
apiVersion: v1
kind: Pod
metadata: {name: fields}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsUser: 1000
    supplementalGroups: [4000]
    supplementalGroupsPolicy: Strict
    fsGroup: 3000
    fsGroupChangePolicy: OnRootMismatch
    seLinuxOptions: {level: "s0:c1,c2"}
    appArmorProfile: {type: Unconfined}
    windowsOptions: {runAsUserName: Nobody}
    sysctls: [{name: net.ipv4.ping_group_range, value: "0 1000"}, {name: kernel.shm_rmid_forced, value: "1"}]
  volumes:
  - {name: v, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: profiles, hostPath: {path: /var/lib/kubelet/seccomp, type: DirectoryOrCreate}}
  initContainers:
  - name: profile
    image: IMAGE
    command: [sh, -c, 'echo "$0" >/profiles/NAMESPACE.json']
    args: ['{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88}]}']
    securityContext: {runAsUser: 0}
    volumeMounts: [{name: profiles, mountPath: /profiles}]
  containers:
  - name: pod
    image: IMAGE
    command: [sh, -c, "id; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shm_rmid_forced; stat -c '%a %u %g' /v /memory; echo x >/v/f && stat -c '%u %g' /v/f; SCRIPT"]
    volumeMounts: [{name: v, mountPath: /v}, {name: memory, mountPath: /memory}]
  - name: user
    image: IMAGE
    command: [sh, -c, "id; SCRIPT"]
    securityContext: {runAsUser: 1001, runAsGroup: 1002, runAsNonRoot: true, allowPrivilegeEscalation: false}
  - name: capabilities
    image: IMAGE
    command: [sh, -c, "id; SCRIPT; touch /f; chown 1 /f; ip link set lo mtu 60000 && cat /sys/class/net/lo/mtu; hostname changed; hostname"]
    securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN, SYS_ADMIN], drop: [CHOWN]}}
  - name: all
    image: IMAGE
    command: [sh, -c, "SCRIPT"]
    securityContext: {runAsUser: 0, capabilities: {add: [ALL]}}
  - name: unconfined
    image: IMAGE
    command: [sh, -c, "SCRIPT; unshare -Ur id -u"]
    securityContext: {seccompProfile: {type: Unconfined}}
  - name: default
    image: IMAGE
    command: [sh, -c, "SCRIPT; unshare -Ur id -u"]
    securityContext: {seccompProfile: {type: RuntimeDefault}, readOnlyRootFilesystem: true}
  - name: localhost
    image: IMAGE
    command: [sh, -c, "SCRIPT; mkdir /tmp/d"]
    securityContext: {seccompProfile: {type: Localhost, localhostProfile: NAMESPACE.json}}
  - name: privileged
    image: IMAGE
    command: [sh, -c, "SCRIPT; mkdir /m; mount -t tmpfs t /m && echo mounted"]
    securityContext: {runAsUser: 0, privileged: true}
---
apiVersion: v1
kind: Pod
metadata: {name: apparmor}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  containers: [{name: c, image: IMAGE, command: [id], securityContext: {appArmorProfile: {type: Localhost, localhostProfile: none}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: mapped}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  hostUsers: false
  automountServiceAccountToken: false
  securityContext: {fsGroup: 3000}
  volumes:
  - {name: v, emptyDir: {}}
  - {name: config, configMap: {name: settings}}
  containers:
  - name: user
    image: IMAGE
    command: [sh, -c, "id; cut -d' ' -f1 /proc/self/setgroups; stat -L -c '%a %u %g' /v /config/key; echo x >/v/f && stat -c '%u %g' /v/f; cat /config/key; SCRIPT"]
    securityContext: {runAsUser: 1000, runAsGroup: 2000}
    volumeMounts: [{name: v, mountPath: /v}, {name: config, mountPath: /config}]
  - name: unmasked
    image: IMAGE
    command: [sh, -c, "grep -c ' /proc/' /proc/mounts; SCRIPT"]
    securityContext: {procMount: Unmasked}
  - name: capable
    image: IMAGE
    command: [sh, -c, "SCRIPT; mkdir /m; mount -t tmpfs t /m && echo mounted; echo 1 >/proc/sys/kernel/panic || echo not of the pod"]
    securityContext: {capabilities: {add: [SYS_ADMIN]}, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}
`

// The other fields of a security context, and user namespaces. Those without a volume in memory: to map the owners of a tmpfs takes
// Linux 6.3, which the emulated node is older than; test/e2e has it in a guest.
func TestSecurityContextFields(t *testing.T) {
	const script = "exec 2>&1; umask; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
	under(t, "fields", func(s *side) {
		defer s.turn()()
		s.apply(strings.NewReplacer("NAMESPACE", s.ns, "SCRIPT", script).Replace(fields))
		// AppArmor is switched off on the tests' node, so the kubelet refuses the pod.
		s.see("apparmor", s.ended("apparmor")+s.get("pod/apparmor", ": {.status.reason}: {.status.message}"))
		for _, pod := range []string{"fields", "mapped"} {
			s.see(pod+".phase", s.ended(pod))
			for _, c := range strings.Fields(s.get("pod/"+pod, "{.spec.containers[*].name}")) {
				s.see(pod+"."+c, s.log(pod, c))
				s.see(pod+"."+c+".exit", s.get("pod/"+pod, "{.status.containerStatuses[?(@.name==\""+c+"\")].state.terminated.exitCode}"))
			}
		}
	})
}
