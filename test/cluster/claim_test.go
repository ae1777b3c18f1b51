package cluster

import (
	"context"
	"strings"
	"testing"
)

// A volume of the node's, as an administrator makes it. PersistentVolumes have no namespace, so their names are of the side's.
const localVolume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAMESPACE}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: NAMESPACE
  volumeMode: MODE
  local: {path: PATH}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [NODE]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: NAMESPACE
  volumeMode: MODE
  resources: {requests: {storage: 1Mi}}
`

// volume makes the PersistentVolume and its claim.
func (s *side) volume(mode, path string) {
	s.apply(strings.NewReplacer("NAMESPACE", s.ns, "MODE", mode, "PATH", path, "NODE", s.node).Replace(localVolume))
	s.Cleanup(func() {
		s.ctx = context.WithoutCancel(s.ctx)
		s.must("delete", "persistentvolume", s.ns, "--wait=false")
	})
}

const claimant = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers: [{name: c, image: IMAGE, command: [sh, -c, "SCRIPT"], volumeMounts: [{name: data, mountPath: /data}]}]
`

// What a pod writes to its claim, the next one reads.
func TestPersistentVolume(t *testing.T) {
	under(t, "claim", func(s *side) {
		path := "/var/lib/" + s.ns
		s.hackNode(s.node, "exec", "--", "mkdir", path)
		s.volume("Filesystem", path)
		for _, p := range []struct{ name, script string }{
			{"writer", "echo written >/data/file; chmod 640 /data/file"},
			{"reader", "cat /data/file; stat -c '%a %u:%g' /data/file /data"},
		} {
			s.see(p.name+".phase", s.run(strings.NewReplacer("NAME", p.name, "SCRIPT", p.script).Replace(claimant), p.name))
			s.see(p.name+".log", s.log(p.name, ""))
		}
		s.hackNode(s.node, "exec", "--", "rm", "-r", path)
	})
}

const blockClaimant = `
apiVersion: v1
kind: Pod
metadata: {name: raw}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], volumeDevices: [{name: data, devicePath: /dev/data}]}]
`

// A block device of the node is not one of the guest's, and the pod says so.
func TestRawBlockVolumeIsRefused(t *testing.T) {
	t.Parallel()
	s := newSide(t, "block", "krun")
	// One that nobody uses: it may be the machine's.
	device := strings.TrimSpace(s.hackNode(s.node, "exec", "--", "sh", "-c", `modprobe loop; truncate -s 1M "$0" && losetup --show -f "$0"`, "/var/"+s.ns))
	defer s.hackNode(s.node, "exec", "--", "sh", "-c", `losetup -d "$1"; rm "$0"`, "/var/"+s.ns, device)
	s.volume("Block", device)
	s.apply(blockClaimant)
	s.eventSays("raw", "/dev/data", "microVM")
	s.must("delete", "pod", "raw", waiting)
}
