package cluster

import (
	"strings"
	"testing"
)

// kinds is a pod with the volumes that its containers use together, and with those of the host.
const kinds = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {plain: "one"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: "s3cret"}
---
apiVersion: v1
kind: Pod
metadata: {name: kinds, labels: {tier: backend}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: password}}
  - {name: downward, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: projected, projected: {sources: [{configMap: {name: settings}}, {serviceAccountToken: {path: token}}]}}
  - {name: disk, emptyDir: {sizeLimit: 64Mi}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: new-dir, hostPath: {path: /tmp/NAMESPACE/dir, type: DirectoryOrCreate}}
  - {name: new-file, hostPath: {path: /tmp/NAMESPACE-file, type: FileOrCreate}}
  - {name: image, image: {reference: IMAGE}}
  initContainers:
  - name: prepare
    image: IMAGE
    command: [sh, -c, "mkdir /disk/dir && echo file >/disk/dir/file"]
    volumeMounts: [{name: disk, mountPath: /disk}]
  containers:
  - name: a
    image: HELPER
    command: [helper, watch, /config, /secret, /downward, /projected]
    volumeMounts: &mounts
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: downward, mountPath: /downward}
    - {name: projected, mountPath: /projected}
    - {name: disk, mountPath: /disk}
    - {name: disk, mountPath: /part, subPath: dir}
    - {name: disk, mountPath: /part-file, subPath: dir/file}
    - {name: disk, mountPath: /of-pod, subPathExpr: $(POD)}
    - {name: memory, mountPath: /memory}
    - {name: new-dir, mountPath: /new-dir}
    - {name: new-file, mountPath: /new-file}
    - {name: image, mountPath: /image}
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  - name: b
    image: HELPER
    command: [helper, listen, /disk/socket, /memory/socket]
    volumeMounts: *mounts
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  - name: reader
    image: IMAGE
    command: [sleep, "10000"]
    volumeMounts:
    - {name: disk, mountPath: /disk, readOnly: true, recursiveReadOnly: Enabled}
    - {name: memory, mountPath: /memory, readOnly: true}
    - {name: new-dir, mountPath: /new-dir, readOnly: true, mountPropagation: HostToContainer}
`

// What containers do to each other through volumes, and what they see of the kubelet's changes.
func TestVolumesBetweenContainers(t *testing.T) {
	under(t, "between", func(s *side) {
		s.start(strings.ReplaceAll(kinds, "NAMESPACE", s.ns), "kinds")
		in := func(container, script string) string {
			s.Helper()
			out, errs, err := s.try("", "exec", "kinds", "-c", container, "--", "sh", "-c", script)
			if err != nil {
				s.Fatalf("%s: %s: %v: %s%s", container, script, err, out, errs)
			}
			return out
		}
		logged := func(container, line string) {
			s.Helper()
			s.until(container+" to say "+line, func() bool { return strings.Contains(s.log("kinds", container), line) })
		}
		logged("a", "watching\n")
		logged("b", "listening\n")

		s.see("socket", in("a", "for s in /disk /memory; do helper dial $s/socket; done"))
		s.see("socket.read-only", in("reader", "ls -l /disk/socket /memory/socket | cut -c1-10; (touch /disk/x || touch /memory/x || touch /new-dir/x) 2>/dev/null || echo read-only"))
		for _, dir := range []string{"/disk", "/memory"} {
			s.see("fifo"+dir, in("a", "mkfifo "+dir+"/fifo")+in("b", "(timeout 60 cat "+dir+"/fifo >"+dir+"/got; mv "+dir+"/got "+dir+"/done) >/dev/null 2>&1 &")+
				in("a", "echo through >"+dir+"/fifo; until [ -e "+dir+"/done ]; do sleep 1; done; cat "+dir+"/done"))
		}
		s.see("sub-path", in("a", "cat /part/file /part-file; echo more >>/part-file; echo new >/part/new; ls -d /disk/kinds; touch /of-pod/x"))
		// A part is another file system than the whole in a guest, which sees a new length after seconds.
		s.see("sub-path.elsewhere", in("b", "for i in $(seq 30); do grep -q more /disk/dir/file && break; sleep 1; done; cat /disk/dir/file /disk/dir/new; ls /disk/kinds"))
		s.see("host", in("a", "stat -c '%a %u %g %F' /new-dir /new-file; echo f >/new-file; echo d >/new-dir/f")+in("b", "cat /new-file /new-dir/f")+in("reader", "cat /new-dir/f"))
		s.see("image", in("a", "ls /image; readlink -f /image/bin/sh; touch /image/x 2>/dev/null || echo read-only; cmp /image/bin/busybox /bin/busybox && echo same"))

		s.must("patch", "configmap", "settings", "--type=merge", "-p", `{"data":{"plain":"two","new":"three"}}`)
		s.must("patch", "secret", "password", "--type=merge", "-p", `{"stringData":{"password":"0ther"}}`)
		s.must("label", "pod", "kinds", "tier=frontend", "--overwrite")
		for _, dir := range []string{"/config", "/secret", "/downward", "/projected"} {
			logged("a", dir+" moved to ..data\n")
		}
		logged("a", "/config create new\n")
		s.see("updated", in("a", "cat /config/plain /config/new /secret/password /projected/plain; grep tier /downward/labels; test -s /projected/token && echo token"))
		s.in("kinds", "rm -r /new-dir/f")
	})
}
