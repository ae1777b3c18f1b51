// krun-runner becomes one microVM: it reads a krun.Config from standard input, confines itself and never returns.

// The runtime must neither keep a file of the cgroup open nor look at it every second (runtime.GOMAXPROCS).
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/sandbox/jail"
)

const usage = `krun-runner runs one microVM. It is started by containerd-shim-krun-v2, not by hand.

  krun-runner < CONFIG.json     become the VM; the guest's console goes to standard output
  krun-runner check [FIRMWARE]  say as JSON what this node offers, without starting a VM ("krunctl check" starts one)
  krun-runner --version
  krun-runner --help

Exit status: 2 for a bad configuration, 1 when the VM cannot be started. Once it runs, the status is libkrun's: 0 after
the guest restarted or its kernel panicked; it says nothing about what happened in the guest.
`

// version is set at link time (-X main.version=…).
var version = "dev"

// Exit statuses.
const (
	exitFailure = 1
	exitConfig  = 2
)

func init() {
	// The VM's event loop runs on the main thread, whose name is the process's.
	runtime.LockOSThread()
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "krun-runner: "+err.Error())
		if isConfigError(err) {
			os.Exit(exitConfig)
		}
		os.Exit(exitFailure)
	}
}

// configError is a configuration that cannot be used.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func isConfigError(err error) bool {
	var c configError
	return errors.As(err, &c)
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return become(stdin)
	}
	switch args[0] {
	case "--version":
		fmt.Fprintf(stdout, "krun-runner %s libkrun %s %s\n", version, krun.LibkrunVersion, runtime.Version())
		return nil
	case "--help", "-h":
		fmt.Fprint(stdout, usage)
		return nil
	case "check":
		return check(args[1:], stdout)
	}
	return configError{fmt.Errorf("unknown argument %q, see --help", args[0])}
}

// become is the way from a configuration to a VM; it returns only an error.
func become(config io.Reader) error {
	c, err := krun.ReadConfig(config)
	if err != nil {
		return configError{err}
	}
	if c.HasSocket() {
		syscall.CloseOnExec(krun.SocketFile) // which spares it
	}
	if err := jail.CloseInherited(); err != nil {
		return err
	}
	// A shim that dies closes the console's pipe: the VM must not die of that.
	signal.Ignore(syscall.SIGPIPE)
	vm, err := krun.Load(c)
	if err != nil {
		return err
	}
	inside, err := jail.Enter(c, func(message string) { fmt.Fprintln(os.Stderr, "krun-runner: "+message) })
	if err != nil {
		return err
	}
	return vm.Enter(inside)
}
