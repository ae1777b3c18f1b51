package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// served is what busy's web server has, in bytes, as a file and in a volume, and held what it keeps in memory.
const (
	served = 2 << 20
	held   = 24 << 20
)

const busy = `
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  volumes: [{name: memory, emptyDir: {medium: Memory}}, {name: disk, emptyDir: {}}]
  containers:
  - name: web
    image: IMAGE
    command: [sh, -c, "mkdir /www; dd if=/dev/zero of=/www/file bs=1M count=2; dd if=/dev/zero of=/disk/x bs=1M count=2; dd if=/dev/zero of=/memory/x bs=1M count=24; exec httpd -f -p 8080 -h /www"]
    volumeMounts: [{name: memory, mountPath: /memory}, {name: disk, mountPath: /disk}]
  - {name: spin, image: IMAGE, command: [sh, -c, "while :; do :; done"], resources: {limits: {cpu: 200m}}}
---
apiVersion: v1
kind: Pod
metadata: {name: fetcher}
spec:
  runtimeClassName: runc
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"]}]
`

// summary is the part of the kubelet's summary (k8s.io/kubelet/pkg/apis/stats/v1alpha1) that is looked at.
type summary struct {
	Pods []struct {
		PodRef  struct{ Name, Namespace string }
		Network struct{ RxBytes, TxBytes uint64 }
		Memory  struct{ WorkingSetBytes uint64 }
		CPU     struct{ UsageNanoCores uint64 }
		Volumes []struct {
			Name      string
			UsedBytes uint64
		} `json:"volume"`
		Storage struct{ UsedBytes uint64 } `json:"ephemeral-storage"`
		// Containers are those of the pod, in any order.
		Containers []struct {
			Name   string
			CPU    struct{ UsageNanoCores, UsageCoreNanoSeconds uint64 }
			Memory struct{ WorkingSetBytes uint64 }
			Rootfs struct{ UsedBytes uint64 }
		}
	}
}

// summary reads the kubelet's.
func (s *side) summary(into any) {
	s.Helper()
	raw, err := api.Raw(s.ctx, "/api/v1/nodes/"+s.node+"/proxy/stats/summary")
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		s.Fatal(err)
	}
}

// What the kubelet tells of a pod is what the pod did: kubectl top, evictions and dashboards live of it.
func TestSummaryOfAPod(t *testing.T) {
	under(t, "summary", func(s *side) {
		s.start(busy, "busy", "fetcher")
		s.in("fetcher", fmt.Sprintf("wget -q -O /dev/null http://%s:8080/file", s.get("pod/busy", "{.status.podIP}")))
		wrong := func() (all []string) {
			var sum summary
			s.summary(&sum)
			is := func(what string, value, least, most uint64) {
				if value < least || value > most {
					all = append(all, fmt.Sprintf("%s is %d, not %d to %d", what, value, least, most))
				}
			}
			for _, p := range sum.Pods {
				if p.PodRef.Name != "busy" || p.PodRef.Namespace != s.ns {
					continue
				}
				is("network sent", p.Network.TxBytes, served, 2*served)
				is("network received", p.Network.RxBytes, 1, served)
				is("memory of the pod", p.Memory.WorkingSetBytes, held, 1<<30)
				is("CPU of the pod", p.CPU.UsageNanoCores, 50e6, 1000e6)
				is("storage of the pod", p.Storage.UsedBytes, 2*served, 4*served) // the file and the volume
				volumes := map[string]uint64{}
				for _, v := range p.Volumes {
					volumes[v.Name] = v.UsedBytes
				}
				is("the volume disk", volumes["disk"], served, 2*served)
				if s.handler == "runc" {
					is("the volume memory", volumes["memory"], held, 2*held)
				} else {
					// It is the guest's, where the kubelet does not look (docs/architecture.md).
					is("the volume memory", volumes["memory"], 0, 0)
				}
				for _, c := range p.Containers {
					switch c.Name {
					case "web":
						is("files of web", c.Rootfs.UsedBytes, served, 2*served)
					case "spin":
						is("CPU of spin", c.CPU.UsageNanoCores, 50e6, 300e6)
						is("memory of spin", c.Memory.WorkingSetBytes, 1, held)
					}
				}
				return all
			}
			return []string{"the pod is not there"}
		}
		s.until("a true summary", func() bool {
			all := wrong()
			if len(all) > 0 {
				s.Log(all)
			}
			return len(all) == 0
		})
		s.until("kubectl top to tell the same", func() bool { return s.topIsTrue() })
	})
}

// topIsTrue reads kubectl top, which has what the metrics server asked the kubelet for: lines of POD NAME CPU MEMORY.
func (s *side) topIsTrue() bool {
	s.Helper()
	out, errs, err := s.try("", "top", "pod", "busy", "--containers", "--no-headers")
	if err != nil {
		s.Logf("kubectl top: %v: %s", err, errs)
		return false
	}
	used := map[string][2]int{}
	for line := range strings.Lines(out) {
		var name string
		var milliCPUs, mib int
		if _, err := fmt.Sscanf(line, "busy %s %dm %dMi", &name, &milliCPUs, &mib); err != nil {
			s.Fatalf("kubectl top says %q: %v", line, err)
		}
		used[name] = [2]int{milliCPUs, mib}
	}
	web, spin := used["web"], used["spin"]
	s.Logf("CPU and memory of web: %v, of spin: %v", web, spin)
	return spin[0] >= 50 && spin[0] <= 300 && spin[1] <= held>>20 && web[1] >= held>>20 && web[1] <= 4*held>>20
}
