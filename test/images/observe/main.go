// Command observe says what a process sees of its container and what it may do there: a line KEY VALUE for each thing,
// of one process, since starting others costs much in an emulated node. The end-to-end tests compare runtimes with it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

var out = bufio.NewWriter(os.Stdout)

func main() {
	if len(os.Args) > 1 {
		return // the child of mayClone
	}
	process()
	mounts()
	files()
	cgroup()
	sysctls()
	network()
	attempts()
	see("observed", "to the end")
	if err := out.Flush(); err != nil {
		os.Exit(1)
	}
}

// see prints an observation on one line.
func see(key, value string) {
	quoted := strconv.Quote(value)
	fmt.Fprintln(out, key, quoted[1:len(quoted)-1])
}

// seeError prints whether something was possible.
func seeError(key string, err error) {
	if err != nil {
		see(key, "no: "+err.Error())
		return
	}
	see(key, "yes")
}

// seeFile prints a file's content, or why it cannot be read.
func seeFile(key, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		seeError(key, err)
		return
	}
	see(key, strings.TrimSuffix(string(data), "\n"))
}
