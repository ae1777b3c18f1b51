package main

import (
	"os"
	"path/filepath"
	"strconv"
)

// monitorSlack is the longest that Go's monitor thread (sysmon, runtime/proc.go) ever sleeps.
const monitorSlack = "10000000" // nanoseconds

// calmMonitor gives that thread a timer slack. It wakes every 20 microseconds for a while whenever there is work after none, which is at
// every frame of a connection that waits for answers: a quarter of this process's time on an emulated node. With the slack its wake-ups
// fall on those of others. It is the first thread that the runtime makes; a process without CAP_SYS_NICE does without.
func calmMonitor() {
	entries, _ := os.ReadDir("/proc/self/task")
	self, _ := os.Readlink("/proc/self") // as in the list, which may be that of another PID namespace
	first := 0
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err == nil && e.Name() != self && (first == 0 || id < first) {
			first = id
		}
	}
	if first != 0 {
		// Of a thread's own directory, which is in no list; that below task lacks the file (fs/proc/base.c).
		_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(first), "timerslack_ns"), []byte(monitorSlack), 0)
	}
}
