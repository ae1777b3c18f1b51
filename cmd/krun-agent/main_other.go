//go:build !cgo || !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "krun-agent: built without cgo, which libcontainer needs: build with CGO_ENABLED=1 for Linux")
	os.Exit(1)
}
