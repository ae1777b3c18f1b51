package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// passing are the fields of proc_pid_status(5) that are another's in each process.
var passing = regexp.MustCompile(`^(Name|Pid|PPid|Tgid|Ngid|NS.*|State|Threads|SigQ|Vm.*|Rss.*|HugetlbPages|.*ctxt_switches)$`)

var spaces = regexp.MustCompile(`\s+`)

// process is what the kernel says of this process, and of the first one of its PID namespace.
func process() {
	for key, value := range fields("/proc/self/status", ":") {
		if !passing.MatchString(key) {
			see("status."+key, value)
		}
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		seeError("limit", err)
	}
	for line := range strings.Lines(string(limits)) {
		// The columns have fixed places: name, soft, hard, unit.
		if len(line) >= 66 && !strings.HasPrefix(line, "Limit") {
			see("limit."+strings.ReplaceAll(strings.TrimSpace(line[:26]), " ", "-"), strings.Join(strings.Fields(line[26:66]), " "))
		}
	}
	for _, name := range []string{"cgroup", "uid_map", "gid_map", "setgroups", "oom_score_adj", "loginuid",
		"sessionid", "personality", "coredump_filter", "attr/current"} {
		seeFile("proc."+name, "/proc/self/"+name)
	}
	see("pid-namespace", fmt.Sprint("this is the first process: ", os.Getpid() == 1, ", there are more than 3: ", len(pids()) > 3))
	cwd, err := os.Getwd()
	see("cwd", fmt.Sprint(cwd, err))
	environment()
	stdio()
	first()
}

func pids() []string {
	found, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	return found
}

// fields reads lines of NAME SEPARATOR VALUE.
func fields(path, separator string) map[string]string {
	all := map[string]string{}
	data, err := os.ReadFile(path)
	if err != nil {
		seeError(path, err)
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, separator); ok {
			all[strings.TrimSpace(key)] = spaces.ReplaceAllString(strings.TrimSpace(value), " ")
		}
	}
	return all
}

func environment() {
	var order []string
	for _, e := range os.Environ() {
		key, value, _ := strings.Cut(e, "=")
		see("env."+key, value)
		order = append(order, key)
	}
	see("env-order", strings.Join(order, " "))
}

var inode = regexp.MustCompile(`[0-9]+\]`)

// stdio is what the open descriptors are.
func stdio() {
	for fd := range 10 {
		to, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if err != nil || strings.HasPrefix(to, "anon_inode:") || strings.HasSuffix(to, "/cpu.max") {
			continue // closed, or the Go runtime's own
		}
		value := inode.ReplaceAllString(to, "]")
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			value += fmt.Sprintf(" terminal %dx%d", size.Col, size.Row)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil {
			value += fmt.Sprintf(" mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
		}
		see(fmt.Sprint("fd.", fd), value)
	}
}

// first looks at the first process from outside of it.
func first() {
	status := fields("/proc/1/status", ":")
	for _, key := range []string{"Uid", "Gid", "Groups", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs", "SigIgn"} {
		see("first."+key, status[key])
	}
	args, err := os.ReadFile("/proc/1/cmdline")
	if err == nil {
		see("first.program", string(bytes.Split(args, []byte{0})[0]))
	}
	// Process group and session, and whether there is a terminal (proc_pid_stat(5)).
	if stat := strings.Fields(fields("/proc/1/stat", ")")[fmt.Sprintf("1 (%s", status["Name"])]); len(stat) > 5 {
		see("first.group", fmt.Sprintf("group %s session %s terminal %v", stat[2], stat[3], stat[4] != "0"))
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"} {
		of1, err := os.Readlink("/proc/1/ns/" + kind)
		own, _ := os.Readlink("/proc/self/ns/" + kind)
		see("first.namespace."+kind, fmt.Sprint("this process's: ", of1 == own, " ", err))
	}
}
