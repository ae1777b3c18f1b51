package cluster

import (
	"strings"
	"testing"
)

const restarted = `
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 2
  volumes: [{name: lives, emptyDir: {}}]
  containers:
  - name: greedy
    image: IMAGE
    command: [sh, -c, "echo life; [ -e /lives/greedy ] && exec sleep 10000; touch /lives/greedy; exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
    resources: {limits: {memory: 48Mi}}
    volumeMounts: [{name: lives, mountPath: /lives}]
  - name: unwell
    image: IMAGE
    command:
    - sh
    - -c
    - |
      trap 'echo told to end; echo why >/dev/termination-log; exit 5' TERM
      if [ -e /lives/unwell ]; then echo second; touch /well; else echo first; touch /lives/unwell; fi
      sleep 10000 & wait
    livenessProbe: {exec: {command: [test, -e, /well]}, initialDelaySeconds: 3, periodSeconds: 2, timeoutSeconds: 10, failureThreshold: 2, terminationGracePeriodSeconds: 30}
    volumeMounts: [{name: lives, mountPath: /lives}]
`

// A container that took too much memory and one whose liveness probe failed are started anew, once, with the reason of the last
// end, its log and its last words; the pod's volume stays.
func TestRestartedContainers(t *testing.T) {
	under(t, "restarted", func(s *side) {
		end := s.turn()
		s.apply(restarted)
		s.begun("again")
		end()
		status := func(name, what string) string {
			s.Helper()
			return s.get("pod/again", `{.status.containerStatuses[?(@.name=="`+name+`")].`+what+`}`)
		}
		for _, name := range []string{"greedy", "unwell"} {
			s.until(name+" to be restarted", func() bool { return status(name, "restartCount") != "0" && status(name, "state.running") != "" })
			s.see(name+".restarts", status(name, "restartCount"))
			s.see(name+".end", status(name, "lastState.terminated.reason")+" "+status(name, "lastState.terminated.exitCode"))
			previous := ""
			s.until("the first log of "+name, func() bool {
				out, _, err := s.try("", "logs", "again", "-c", name, "--previous")
				previous = out
				return err == nil && !strings.HasPrefix(out, "unable to retrieve")
			})
			s.see(name+".previous-log", previous)
			s.until("the second log of "+name, func() bool { return s.log("again", name) != "" })
			s.see(name+".log", s.must("logs", "again", "-c", name))
		}
		s.see("unwell.last-words", status("unwell", "lastState.terminated.message"))
		s.eventSays("again", "unwell", "failed liveness probe, will be restarted")
	})
}
