// Command krun-vnet carries the frames of one pod past its network policy. It is started by the sandbox in the pod's network
// namespace, or for a guest without one of CNI's as its gateway in the host's, reads a vnet.Config from standard input and lives for as long as that stays open.

// The runtime must neither keep a file of the cgroup open nor look at it every second (runtime.GOMAXPROCS).
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"time"

	"krun.dev/krunpod/sandbox/jail"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/nat"
)

const usage = `krun-vnet carries a pod's frames past its network policy. It is started by containerd-shim-krun-v2, not by hand.

  krun-vnet < CONFIG.json   until standard input ends; reports go to standard output, refused names to standard error
  krun-vnet --version
  krun-vnet --help
`

// version is set at link time (-X main.version=…).
var version = "dev"

const (
	// reportEvery is how old what the host knows may be.
	reportEvery = 5 * time.Second
	// memoryLimit makes the garbage collector work harder before the pod's cgroup is short of memory: a table of connections takes
	// 8 MiB when it is full, and there is one for each link.
	memoryLimit = 32 << 20
	// lastWords bounds the last report, and maxUntold the refused names that wait to be logged.
	lastWords = time.Second
	maxUntold = 32
)

func main() {
	switch {
	case len(os.Args) == 1:
	case os.Args[1] == "--version":
		fmt.Println("krun-vnet", version)
		return
	case os.Args[1] == "--help":
		fmt.Print(usage)
		return
	default:
		fail(fmt.Errorf("unknown argument %q, see --help", os.Args[1]))
	}
	if err := run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "krun-vnet:", err)
	os.Exit(1)
}

func run() error {
	calmMonitor()
	debug.SetMemoryLimit(memoryLimit)
	c, err := vnet.ReadConfig(os.Stdin)
	if err != nil {
		return err
	}
	var guest net.Conn
	if c.Gateway != nil {
		if guest, err = guestConn(); err != nil {
			return err
		}
	}
	if err := jail.CloseInherited(); err != nil {
		return err
	}
	names := make(chan refusal, maxUntold)
	go tell(names)
	v, err := vnet.Open(c, vnet.Hooks{
		Refused: func(name string, untold int) bool {
			select {
			case names <- refusal{"the policy has not the name that the pod asked for", name, untold}:
				return true
			default:
				return false
			}
		},
		Guest:   guest,
		Gateway: func(c gateway.Config, s gateway.Services) (vnet.Gateway, error) { return nat.Open(c, s) },
	})
	if err != nil {
		return err
	}
	if err := jail.EnterBare(c.Root, sockets(v)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		// The sandbox has closed it, or is dead.
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	told := make(chan struct{})
	go func() {
		defer close(told)
		report(ctx, v)
	}()
	err = v.Run(ctx)
	cancel()
	select {
	case <-told:
	case <-time.After(lastWords): // nobody reads
	}
	return err
}

// guestConn is what vnet.GuestFile leads to.
func guestConn() (net.Conn, error) {
	f := os.NewFile(vnet.GuestFile, "guest")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is to lead to the guest: %w", vnet.GuestFile, err)
	}
	return conn, nil
}

// sockets is what is done with them once the jail is closed.
func sockets(v *vnet.Vnet) jail.Sockets {
	switch {
	case v.Serves():
		return jail.Serve
	case v.Dials():
		return jail.Dial
	}
	return jail.NoSockets
}

// refusal is a line of JSON about a name, and how many others there is no line about.
type refusal struct {
	Msg    string `json:"msg"`
	Name   string `json:"name"`
	Untold int    `json:"untold,omitempty"`
}

// tell logs what comes out of a channel. The resolver must not wait for who reads it.
func tell(names <-chan refusal) {
	enc := json.NewEncoder(os.Stderr)
	for r := range names {
		_ = enc.Encode(r)
	}
}

// report writes a line of JSON now and then, and at the end; the first one says that frames are carried.
func report(ctx context.Context, v *vnet.Vnet) {
	for {
		if err := vnet.WriteReport(os.Stdout, v.Report()); err != nil {
			return // nobody reads it any more: the end of standard input is near
		}
		select {
		case <-ctx.Done():
			_ = vnet.WriteReport(os.Stdout, v.Report())
			return
		case <-time.After(reportEvery):
		}
	}
}
