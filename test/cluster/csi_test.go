package cluster

import (
	"context"
	"strings"
	"testing"
)

// A driver of the Container Storage Interface (test/images/helper), and a volume of it that nobody has to provision.
const csiDriver = `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: NAMESPACE.krun.dev}
spec: {attachRequired: false, fsGroupPolicy: File}
---
apiVersion: v1
kind: Pod
metadata: {name: driver}
spec:
  runtimeClassName: runc
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: kubelet, hostPath: {path: /var/lib/kubelet}}
  - {name: volumes, hostPath: {path: /var/lib/NAMESPACE, type: DirectoryOrCreate}}
  containers:
  - name: driver
    image: HELPER
    command: [helper, csi, NAMESPACE.krun.dev, NODE, /volumes]
    securityContext: {privileged: true}
    volumeMounts:
    - {name: kubelet, mountPath: /var/lib/kubelet, mountPropagation: Bidirectional}
    - {name: volumes, mountPath: /volumes}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAMESPACE}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: NAMESPACE
  csi: {driver: NAMESPACE.krun.dev, volumeHandle: first}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: NAMESPACE
  resources: {requests: {storage: 1Mi}}
`

// csiPod has the claim once to write and once to read, and what a driver mounts for one pod alone.
const csiPod = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "SCRIPT"]
    volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /read, readOnly: true}, {name: data, mountPath: /part, subPath: part}]
`

// A storage driver mounts a volume on the node when the pod's sandbox is there or not yet; it is the pod's all the same, and the
// driver can unmount it when the pod is gone.
func TestContainerStorageInterface(t *testing.T) {
	under(t, "csi", func(s *side) {
		end := s.turn()
		s.apply(strings.NewReplacer("NAMESPACE", s.ns, "NODE", s.node).Replace(csiDriver))
		s.Cleanup(func() {
			s.ctx = context.WithoutCancel(s.ctx)
			s.must("delete", "csidriver/"+s.ns+".krun.dev", "persistentvolume/"+s.ns, "--wait=false")
			s.hackNode(s.node, "exec", "--", "rm", "-rf", "/var/lib/"+s.ns, "/var/lib/kubelet/plugins/"+s.ns+".krun.dev",
				"/var/lib/kubelet/plugins_registry/"+s.ns+".krun.dev-reg.sock")
		})
		s.ready("driver")
		end()
		s.until("the kubelet to know the driver", func() bool {
			return strings.Contains(s.get("csinode/"+s.node, "{.spec.drivers[*].name}"), s.ns+".krun.dev")
		})
		for _, p := range []struct{ name, script string }{
			{"writer", "echo written >/data/file; echo part >/part/f; chmod 640 /data/file; cat /read/file; (echo x >/read/x) 2>/dev/null || echo read-only"},
			{"reader", "cat /data/file /data/part/f; stat -c '%a %u:%g' /data/file /data; rm /data/part/f"},
		} {
			s.see(p.name+".phase", s.run(strings.NewReplacer("NAME", p.name, "SCRIPT", p.script).Replace(csiPod), p.name))
			s.see(p.name+".log", s.log(p.name, ""))
			s.must("delete", "pod", p.name, waiting)
		}
		// The kubelet has the driver unmount it after the pod is gone from the API.
		s.until("the volume to be unmounted on the node", func() bool {
			return s.hackNode(s.node, "exec", "--", "sh", "-c", "grep /"+s.ns+" /proc/self/mountinfo || true") == ""
		})
	})
}
