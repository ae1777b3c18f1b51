package e2e

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"krun.dev/krunpod/test/testpod"
)

// hugeAtBoot bounds the huge pages of a guest of 512 MiB, in KiB: less would be a boot of thousands of faults, more would be
// memory that the guest does not use (krun/memory_amd64.c).
const hugeAtBootLeast, hugeAtBootMost = 24 << 10, 44 << 10

func TestWhatABootWritesToIsInHugePages(t *testing.T) {
	if mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil || strings.Contains(string(mode), "[never]") {
		t.Skipf("the node has no transparent huge pages to give: %s %v", mode, err)
	}
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	pid := strconv.Itoa(runnerOf(t, p.ID))
	if huge := smapsField(t, pid, "AnonHugePages"); huge < hugeAtBootLeast || huge > hugeAtBootMost {
		t.Errorf("%d KiB in huge pages, want %d to %d", huge, hugeAtBootLeast, hugeAtBootMost)
	}
	// And it ends with the boot: what a container uses later comes in small pages, which go back to the host one by one.
	before := smapsField(t, pid, "AnonHugePages")
	if _, stderr, exit, err := k.Exec(n.ctx, "head -c 64m /dev/zero | tail -c 1 >/dev/null; dd if=/dev/zero of=/dev/shm/some bs=1M count=48"); err != nil || exit != 0 {
		t.Fatalf("exit %d, %v: %s", exit, err, stderr)
	}
	if after := smapsField(t, pid, "AnonHugePages"); after > before {
		t.Errorf("%d KiB in huge pages after the boot, %d before", after, before)
	}
}

// smapsField is a sum over the memory of a process in KiB (proc_pid_smaps(5), smaps_rollup).
func smapsField(t *testing.T, pid, field string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatalf("no %s in smaps_rollup: %s", field, data)
	return 0
}
