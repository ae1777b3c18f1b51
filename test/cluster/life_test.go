package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const probed = `
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers:
  - name: http
    image: IMAGE
    command: [sh, -c, "mkdir /www; touch /www/ready; exec httpd -f -p 8080 -h /www"]
    startupProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
    readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 1}
  - name: exec
    image: IMAGE
    command: [sh, -c, "touch /alive; exec sleep 10000"]
    livenessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 1}
  - name: tcp
    image: IMAGE
    command: [httpd, -f, -p, "7000"]
    readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 2, timeoutSeconds: 5}
  - name: grpc
    image: HELPER
    command: [sh, -c, "touch /healthy; exec helper health 7001 /healthy"]
    readinessProbe: {grpc: {port: 7001}, periodSeconds: 2, timeoutSeconds: 5}
    startupProbe: {grpc: {port: 7001}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
    livenessProbe: {grpc: {port: 7001}, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 2}
`

func TestProbes(t *testing.T) {
	under(t, "probes", func(s *side) {
		s.apply(probed)
		s.ready("probed")
		s.must("exec", "probed", "-c", "http", "--", "rm", "/www/ready")
		s.until("the pod to be not ready", func() bool {
			return s.get("pod/probed", "{.status.conditions[?(@.type==\"Ready\")].status}") == "False"
		})
		s.must("exec", "probed", "-c", "http", "--", "touch", "/www/ready")
		s.ready("probed")
		s.must("exec", "probed", "-c", "exec", "--", "rm", "/alive")
		s.must("exec", "probed", "-c", "grpc", "--", "rm", "/healthy")
		for _, c := range []string{"exec", "grpc"} {
			s.until("a restart of "+c, func() bool {
				return s.get("pod/probed", "{.status.containerStatuses[?(@.name==\""+c+"\")].restartCount}") == "1"
			})
		}
		s.ready("probed")
		s.see("restarts", s.get("pod/probed", "{.status.containerStatuses[*].restartCount}"))
	})
}

const hooked = `
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 20
  volumes: [{name: told, hostPath: {path: /tmp/NAMESPACE, type: DirectoryOrCreate}}]
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, "echo first >>/told/order"], volumeMounts: [{name: told, mountPath: /told}]}
  - name: sidecar
    image: IMAGE
    restartPolicy: Always
    command: [sh, -c, "trap 'echo sidecar-ends >>/told/order; exit 0' TERM; echo sidecar >>/told/order; while :; do sleep 1; done"]
    volumeMounts: [{name: told, mountPath: /told}]
  - {name: last, image: IMAGE, command: [sh, -c, "sleep 2; echo last >>/told/order"], volumeMounts: [{name: told, mountPath: /told}]}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "trap 'echo term >>/told/order; exit 4' TERM; while :; do sleep 1; done"]
    volumeMounts: [{name: told, mountPath: /told}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo post-start >>/told/order"]}}
      preStop: {exec: {command: [sh, -c, "echo pre-stop >>/told/order; sleep 1"]}}
`

// The order of init containers, a sidecar, hooks and the end, as they wrote it down on the node.
func TestHooksAndSidecars(t *testing.T) {
	under(t, "hooks", func(s *side) {
		manifest := strings.ReplaceAll(hooked, "NAMESPACE", s.ns)
		s.apply(manifest)
		s.ready("hooked")
		s.must("delete", "pod", "hooked", waiting)
		s.apply(strings.ReplaceAll(`
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  runtimeClassName: runc
  restartPolicy: Never
  volumes: [{name: told, hostPath: {path: /tmp/NAMESPACE}}]
  containers: [{name: reader, image: IMAGE, command: [sh, -c, "cat /told/order; rm -r /told/order"], volumeMounts: [{name: told, mountPath: /told}]}]
`, "NAMESPACE", s.ns))
		s.ended("reader")
		s.see("order", s.must("logs", "reader"))
	})
}

func TestEphemeralContainer(t *testing.T) {
	under(t, "debug", func(s *side) {
		s.apply(client)
		s.ready("client")
		s.must("debug", "client", "--image="+image, "--target=client", "--container=look", "--profile=general", "--",
			"sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc/1/root/bin/sleep; hostname; exec sleep 1000")
		s.until("the ephemeral container", func() bool {
			return s.get("pod/client", "{.status.ephemeralContainerStatuses[0].state.running}") != ""
		})
		s.until("what it says", func() bool { return strings.Count(s.must("logs", "client", "-c", "look"), "\n") >= 3 })
		s.see("log", s.must("logs", "client", "-c", "look"))
	})
}

const jobs = `
apiVersion: batch/v1
kind: Job
metadata: {name: good}
spec:
  completions: 2
  parallelism: 2
  template:
    spec:
      runtimeClassName: RUNTIME
      restartPolicy: Never
      containers: [{name: good, image: IMAGE, command: [sh, -c, "echo done"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 1
  template:
    spec:
      runtimeClassName: RUNTIME
      restartPolicy: Never
      containers: [{name: bad, image: IMAGE, command: [sh, -c, "exit 9"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: each}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          runtimeClassName: RUNTIME
          restartPolicy: Never
          containers: [{name: each, image: IMAGE, command: [sh, -c, "echo tick"]}]
`

func TestJobs(t *testing.T) {
	under(t, "jobs", func(s *side) {
		s.apply(jobs)
		s.must("wait", "--for=condition=Complete", "job/good", waiting)
		s.must("wait", "--for=condition=Failed", "job/bad", waiting)
		s.see("good", s.get("job/good", "{.status.succeeded}"))
		s.see("good.log", s.must("logs", "--selector", "job-name=good"))
		s.see("bad", s.get("job/bad", "{.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason}"))
		s.see("bad.exit", s.get("pods", "{.items[?(@.metadata.labels.job-name==\"bad\")].status.containerStatuses[0].state.terminated.exitCode}"))
		s.until("a job of the CronJob to succeed", func() bool {
			return strings.Contains(s.get("jobs", "{range .items[*]}{.metadata.name}={.status.succeeded} {end}"), "each-") &&
				strings.Contains(s.get("jobs", "{range .items[?(@.metadata.ownerReferences[0].kind==\"CronJob\")]}{.status.succeeded} {end}"), "1")
		})
	})
}

const endings = `
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  containers:
  - name: greedy
    image: IMAGE
    command: [sh, -c, "exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
    resources: {limits: {memory: 48Mi, cpu: 500m}}
---
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 3
  containers: [{name: deaf, image: IMAGE, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  activeDeadlineSeconds: 25
  terminationGracePeriodSeconds: 1
  containers: [{name: late, image: IMAGE, command: [sh, -c, "exec sleep 10000"]}]
`

func TestEndings(t *testing.T) {
	under(t, "ends", func(s *side) {
		s.apply(endings)
		s.see("greedy.phase", s.ended("greedy"))
		s.see("greedy.end", s.get("pod/greedy", "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}"))
		s.ready("deaf")
		began := time.Now()
		s.must("delete", "pod", "deaf", waiting)
		s.see("deaf.had-its-grace", fmt.Sprint(time.Since(began) > 2*time.Second))
		s.see("late.phase", s.ended("late"))
		s.see("late.reason", s.get("pod/late", "{.status.reason}"))
	})
}
