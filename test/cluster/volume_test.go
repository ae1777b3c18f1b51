package cluster

import (
	"strings"
	"testing"
)

const volumes = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {plain: "one", "sub.conf": "key = value\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: "s3cret"}
---
apiVersion: v1
kind: Pod
metadata: {name: volumes, labels: {tier: backend}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: config, configMap: {name: settings, defaultMode: 0440}}
  - {name: secret, secret: {secretName: password, defaultMode: 0400}}
  - name: all
    projected:
      sources:
      - configMap: {name: settings, items: [{key: plain, path: from/config}]}
      - secret: {name: password}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
  - name: downward
    downwardAPI:
      items:
      - {path: name, fieldRef: {fieldPath: metadata.name}}
      - {path: limit, resourceFieldRef: {containerName: a, resource: limits.memory}}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: host, hostPath: {path: /tmp/NAMESPACE-dir, type: DirectoryOrCreate}}
  - {name: file, hostPath: {path: /etc/hostname, type: File}}
  containers:
  - name: a
    image: IMAGE
    command: [sleep, "10000"]
    resources: {limits: {memory: 64Mi}}
    env:
    - {name: FROM_CONFIG, valueFrom: {configMapKeyRef: {name: settings, key: plain}}}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: password, key: password}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts: &mounts
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: all, mountPath: /all}
    - {name: downward, mountPath: /downward}
    - {name: scratch, mountPath: /scratch}
    - {name: scratch, mountPath: /part, subPath: some/part}
    - {name: config, mountPath: /etc/sub.conf, subPath: sub.conf}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host}
    - {name: file, mountPath: /file, readOnly: true}
  - name: b
    image: IMAGE
    command: [sleep, "10000"]
    volumeMounts: *mounts
`

// The volumes that every cluster has: what is in them, whose it is, and what the containers share.
func TestVolumes(t *testing.T) {
	under(t, "volumes", func(s *side) {
		s.start(strings.ReplaceAll(volumes, "NAMESPACE", s.ns), "volumes")
		in := func(container, script string) string {
			s.Helper()
			out, errs, err := s.try("", "exec", "volumes", "-c", container, "--", "sh", "-c", script)
			if err != nil {
				s.Fatalf("%s: %v: %s%s", script, err, out, errs)
			}
			return out
		}
		for key, script := range map[string]string{
			"config":      "cat /config/plain /config/sub.conf; stat -L -c '%a %u %g' /config/plain /config",
			"secret":      "cat /secret/password; stat -L -c '%a %u %g' /secret/password",
			"projected":   "cat /all/from/config /all/password /all/labels; test -s /all/token && echo token",
			"downward":    "cat /downward/name /downward/limit",
			"environment": "echo $FROM_CONFIG $FROM_SECRET; test -n \"$POD_IP\" && echo address",
			"sub-path":    "cat /etc/sub.conf; stat -c '%a %u %g' /etc/sub.conf",
			"read-only":   "for f in /config/x /secret/x /all/x /downward/x /file; do (echo x >$f) 2>/dev/null && echo wrote $f; done; echo tried",
			"scratch":     "stat -c '%a %u %g %F' /scratch /part; echo a >/scratch/f; mkfifo /scratch/fifo; ln -s f /scratch/link; cat /scratch/link",
			"memory":      "stat -c '%a %u %g %F' /memory; df -k /memory | awk 'NR == 2 {print $2}'; grep -c ' /memory tmpfs' /proc/mounts || true",
			"memory-full": "dd if=/dev/zero of=/memory/big bs=1M count=16 2>&1 | tail -1 | cut -d, -f1; rm /memory/big",
			"host":        "stat -c '%a %u %g %F' /host; echo h >/host/f && cat /host/f",
			"file":        "sed 's/" + s.node + "/its node/' /file",
		} {
			s.see(key, in("a", script))
		}
		s.see("shared", in("b", "cat /scratch/f /host/f; ls -l /scratch | awk 'NR > 1 {print $1, $NF}'; echo m >/memory/m")+in("a", "cat /memory/m"))
		s.see("part", in("a", "echo p >/part/p")+in("b", "cat /scratch/some/part/p"))
		s.lookAtUpdates(in)
	})
}

// lookAtUpdates changes a ConfigMap and waits for it in the container.
func (s *side) lookAtUpdates(in func(container, script string) string) {
	s.Helper()
	s.must("patch", "configmap", "settings", "--type=merge", "-p", `{"data":{"plain":"two","new":"three"}}`)
	in("a", comes(`[ "$(cat /config/plain /config/new /all/from/config 2>/dev/null)" = twothreetwo ]`))
	s.see("update.sub-path", in("a", "cat /etc/sub.conf"))
	s.see("update.environment", in("a", "echo $FROM_CONFIG"))
}
