package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// probed has each kind of probe in each role, with the patience that a pod on an emulated node needs. What a probe looks for goes when a command takes it away, and is there again in the
// container's next life.
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
    command: [sh, -c, "mkdir /www; touch /www/ready /www/alive; exec httpd -f -p 8080 -h /www"]
    startupProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
    readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 5, timeoutSeconds: 15, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /alive, port: 8080}, periodSeconds: 10, timeoutSeconds: 30, failureThreshold: 2}
  - name: exec
    image: IMAGE
    command: [sh, -c, "touch /alive; exec sleep 10000"]
    startupProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 60}
    readinessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 10, timeoutSeconds: 15}
    livenessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 10, timeoutSeconds: 30, failureThreshold: 2}
  - name: tcp
    image: IMAGE
    command: [sh, -c, "httpd -p 7000; exec sleep 10000"]
    startupProbe: {tcpSocket: {port: 7000}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
    readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 5, timeoutSeconds: 15}
    livenessProbe: {tcpSocket: {port: 7000}, periodSeconds: 10, timeoutSeconds: 30, failureThreshold: 2}
  - name: grpc
    image: HELPER
    command: [sh, -c, "touch /healthy; exec helper health 7001 /healthy"]
    startupProbe: {grpc: {port: 7001}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 60}
    readinessProbe: {grpc: {port: 7001}, periodSeconds: 5, timeoutSeconds: 15}
    livenessProbe: {grpc: {port: 7001}, periodSeconds: 10, timeoutSeconds: 30, failureThreshold: 2}
`

func TestProbes(t *testing.T) {
	under(t, "probes", func(s *side) {
		s.start(probed, "probed")
		s.must("exec", "probed", "-c", "http", "--", "rm", "/www/ready")
		s.until("the pod to be not ready", func() bool {
			return s.get("pod/probed", "{.status.conditions[?(@.type==\"Ready\")].status}") == "False"
		})
		s.must("exec", "probed", "-c", "http", "--", "touch", "/www/ready")
		s.ready("probed")
		s.see("restarts.before", s.get("pod/probed", "{.status.containerStatuses[*].restartCount}"))
		ends := map[string][]string{
			"http": {"rm", "/www/alive"}, "exec": {"rm", "/alive"}, "tcp": {"killall", "httpd"}, "grpc": {"rm", "/healthy"},
		}
		for c, command := range ends {
			s.must(append([]string{"exec", "probed", "-c", c, "--"}, command...)...)
		}
		for c := range ends {
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
  terminationGracePeriodSeconds: 120
  volumes: [{name: told, hostPath: {path: /tmp/NAMESPACE, type: DirectoryOrCreate}}]
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, "echo first >>/told/order"], volumeMounts: [{name: told, mountPath: /told}]}
  - name: sidecar
    image: IMAGE
    restartPolicy: Always
    command: [sh, -c, "trap 'echo sidecar-ends >>/told/order; exit 0' TERM; echo sidecar >>/told/order; sleep 10000 & wait"]
    volumeMounts: [{name: told, mountPath: /told}]
  - {name: last, image: IMAGE, command: [sh, -c, "sleep 2; echo last >>/told/order"], volumeMounts: [{name: told, mountPath: /told}]}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "trap 'echo term >>/told/order; exit 4' TERM; sleep 10000 & wait"]
    volumeMounts: [{name: told, mountPath: /told}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo post-start >>/told/order"]}}
      preStop: {exec: {command: [sh, -c, "echo pre-stop >>/told/order; sleep 1"]}}
  - name: web
    image: IMAGE
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin
      printf '#!/bin/sh\necho asked >>/told/web\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\n' >/www/cgi-bin/told
      chmod 755 /www/cgi-bin/told
      httpd -p 8080 -h /www
      trap 'echo term >>/told/web; exit 0' TERM
      sleep 10000 & wait
    volumeMounts: [{name: told, mountPath: /told}]
    lifecycle:
      postStart: {sleep: {seconds: 1}}
      preStop: {httpGet: {path: /cgi-bin/told, port: 8080}}
---
apiVersion: v1
kind: Pod
metadata: {name: unhooked}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: IMAGE, command: [sleep, "10000"], lifecycle: {postStart: {exec: {command: [sh, -c, "echo no >&2; exit 3"]}}}}
`

// The order of init containers, a sidecar, hooks and the end, as they wrote it down on the node.
func TestHooksAndSidecars(t *testing.T) {
	under(t, "hooks", func(s *side) {
		manifest := strings.ReplaceAll(hooked, "NAMESPACE", s.ns)
		end := s.turn()
		s.apply(manifest)
		s.see("failed.phase", s.ended("unhooked"))
		s.eventSays("unhooked", "PostStartHook")
		s.see("failed.exit", s.get("pod/unhooked", "{.status.containerStatuses[0].state.terminated.exitCode}"))
		s.ready("hooked")
		end()
		s.must("delete", "pod", "hooked", waiting)
		s.see("order", s.hackNode(s.node, "exec", "--", "sh", "-c", `cat "$0/order" "$0/web"; rm -r "$0"`, "/tmp/"+s.ns))
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
`

const cronJob = `
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
		end := s.turn()
		s.apply(jobs)
		s.is("job/good", "Complete")
		s.is("job/bad", "Failed")
		end()
		s.apply(cronJob)
		s.see("good", s.get("job/good", "{.status.succeeded}"))
		s.see("good.log", s.must("logs", "--selector", "job-name=good"))
		s.see("bad", s.get("job/bad", "{.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason}"))
		s.see("bad.exit", s.get("pods", "{.items[?(@.metadata.labels.job-name==\"bad\")].status.containerStatuses[0].state.terminated.exitCode}"))
		cronJobs := `{.items[?(@.metadata.ownerReferences[0].kind=="CronJob")].`
		s.until("a Job of the CronJob", func() bool { return s.get("jobs", cronJobs+"metadata.name}") != "" })
		s.must("patch", "cronjob", "each", "-p", `{"spec":{"suspend":true}}`) // it has shown that it makes Jobs
		s.until("it to succeed", func() bool { return strings.HasPrefix(s.get("jobs", cronJobs+"status.succeeded}"), "1") })
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
metadata: {name: deaf, finalizers: [krun.dev/e2e]}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  terminationGracePeriodSeconds: 3
  containers: [{name: deaf, image: IMAGE, command: [sh, -c, "trap '' TERM; exec sleep 10000"]}]
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
	const terminated = "{.status.containerStatuses[0].state.terminated."
	under(t, "ends", func(s *side) {
		end := s.turn()
		s.apply(endings)
		s.see("greedy.phase", s.ended("greedy"))
		s.see("greedy.end", s.get("pod/greedy", "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}"))
		s.ready("deaf")
		end()
		// The finalizer keeps what the kubelet says of the end; the pod's removal takes as long as the node has other things to do.
		s.must("delete", "pod", "deaf", "--wait=false")
		// It is when its grace is over (API reference, ObjectMeta), until the kubelet, which has seen the end, deletes the pod without any.
		over := s.at("pod/deaf", "{.metadata.deletionTimestamp}")
		s.until("deaf to end", func() bool { return s.get("pod/deaf", terminated+"exitCode}") != "" })
		s.see("deaf.exit", s.get("pod/deaf", terminated+"exitCode}"))
		ahead := s.clockAhead()
		// Both are in whole seconds, and the first is by the API server's clock.
		late := s.at("pod/deaf", terminated+"finishedAt}").Add(-ahead).Sub(over)
		s.Logf("deaf ended %v after its grace; its node's clock was %v ahead", late, ahead)
		s.see("deaf.had-its-grace", fmt.Sprint(late >= -time.Second && late < time.Minute-3*time.Second))
		s.must("patch", "pod", "deaf", "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)
		s.until("deaf to be gone", func() bool { return !s.exists("pod/deaf") })
		s.see("late.phase", s.ended("late"))
		s.see("late.reason", s.get("pod/late", "{.status.reason}"))
	})
}
