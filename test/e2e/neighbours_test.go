package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// neighbourEnv makes this binary one of two processes, host and guest, that meet in the directory /d, each in a container
// of its own.
const neighbourEnv = "KRUNPOD_E2E_NEIGHBOUR"

func neighbour(role string) {
	f := neighbourGuest
	if role == "host" {
		f = neighbourHost
	}
	if err := f(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// mapShared maps the first page of a file.
func mapShared(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// neighbourHost holds two locks, reads a FIFO, and answers each caller of its socket with what the memory it has mapped
// says and the FIFO holds, after it has made a file longer.
func neighbourHost() error {
	mapped, err := mapShared("/d/map")
	if err != nil {
		return err
	}
	for _, path := range []string{"/d/flock", "/d/posix", "/d/grows"} {
		if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
			return err
		}
	}
	flock, err := os.Open("/d/flock")
	if err == nil {
		err = unix.Flock(int(flock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return err
	}
	posix, err := os.OpenFile("/d/posix", os.O_RDWR, 0)
	if err == nil {
		err = unix.FcntlFlock(posix.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	if err != nil {
		return err
	}
	if err := unix.Mkfifo("/d/fifo", 0o600); err != nil {
		return err
	}
	fifo, err := unix.Open("/d/fifo", unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", "/d/socket")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if err := os.WriteFile("/d/grows", []byte("12"), 0o600); err != nil {
			return err
		}
		buf := make([]byte, 64)
		n, _ := unix.Read(fifo, buf)
		fmt.Fprintf(conn, "map %q fifo %q", mapped[:5], buf[:max(n, 0)])
		conn.Close()
	}
}

// neighbourGuest prints what it finds of the other.
func neighbourGuest() error {
	mapped, err := mapShared("/d/map")
	if err != nil {
		return err
	}
	copy(mapped, "hello")
	for name, try := range map[string]func(f *os.File) error{
		"flock": func(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) },
		"posix": func(f *os.File) error {
			return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		},
	} {
		f, err := os.OpenFile("/d/"+name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		fmt.Println(name, "busy", errors.Is(try(f), unix.EAGAIN))
		f.Close()
	}
	size := func() int64 {
		st, err := os.Stat("/d/grows")
		if err != nil {
			return -1
		}
		return st.Size()
	}
	before := size()
	fifo, err := unix.Open("/d/fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		_, err = unix.Write(fifo, []byte("through"))
	}
	fmt.Println("fifo error", err)
	conn, err := net.Dial("unix", "/d/socket")
	if err != nil {
		return err
	}
	answer := make([]byte, 128)
	n, err := conn.Read(answer)
	fmt.Printf("socket %s %v\n", answer[:n], err)
	fmt.Println("grows from", before, "to", size())
	return nil
}

// neighbours is what the guest of two neighbours finds, line by line.
var neighbours = []string{
	"flock busy true", "posix busy true", "fifo error <nil>", `socket map "hello" fifo "through" <nil>`, "grows from 1 to 2",
}

func (n *node) checkNeighbours(p *testpod.Pod, medium string, mount *runtime.Mount) {
	n.Helper()
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	config := func(role string) *runtime.ContainerConfig {
		c := testpod.ContainerConfig(role+"-"+medium, "exec /e2e.test")
		c.Envs = []*runtime.KeyValue{{Key: neighbourEnv, Value: []byte(role)}}
		c.Mounts = []*runtime.Mount{{HostPath: self, ContainerPath: "/e2e.test", Readonly: true}, mount}
		return c
	}
	n.waitLog(n.container(p, config("host")), "ready\n")
	guest := n.container(p, config("guest"))
	n.waitExit(guest)
	out, _, err := guest.Log()
	if err != nil {
		n.Fatal(err)
	}
	for _, line := range neighbours {
		if !strings.Contains(out, line+"\n") {
			n.Errorf("%s: %q is missing in %q", medium, line, out)
		}
	}
}

func TestContainersMeetInAVolume(t *testing.T) {
	for _, h := range []string{handler, "runc"} {
		t.Run(h, func(t *testing.T) {
			n := newNode(t)
			p := n.podOf(h)
			dir := n.kubeletVolume(p, "empty-dir", "scratch")
			n.checkNeighbours(p, "disk", &runtime.Mount{HostPath: dir, ContainerPath: "/d"})
			config := testpod.ContainerConfig("reader", "exec sleep 1000")
			config.Mounts = []*runtime.Mount{{HostPath: dir, ContainerPath: "/d", Readonly: true}}
			n.exec(n.container(p, config), "test $(cat /d/grows) = 12 && test -S /d/socket && ! touch /d/x && ! rm /d/map")
		})
	}
}
