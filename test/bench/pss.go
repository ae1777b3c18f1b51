package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pss is the proportional set size of one process.
type pss struct {
	name string
	kib  int
}

// pssByProcess reads every process of the node, by process id.
func pssByProcess() (map[string]pss, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := map[string]pss{}
	for _, d := range dirs {
		name, err := os.ReadFile(filepath.Join(d, "comm"))
		if err != nil {
			continue // it has ended
		}
		kib, err := readPSS(filepath.Join(d, "smaps_rollup"))
		if err != nil {
			continue // a kernel thread, or it has ended
		}
		// Behind the colon is which VM: krun-runner names itself so.
		kind, _, _ := strings.Cut(strings.TrimSpace(string(name)), ":")
		all[d] = pss{kind, kib}
	}
	return all, nil
}

func readPSS(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var kib int
		if _, err := fmt.Sscanf(lines.Text(), "Pss: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, fmt.Errorf("%s has no Pss", path)
}

// added sums by name the processes that were not there before.
func added(before, after map[string]pss) map[string]int {
	sum := map[string]int{}
	for pid, p := range after {
		if _, old := before[pid]; !old {
			sum[p.name] += p.kib
		}
	}
	return sum
}
