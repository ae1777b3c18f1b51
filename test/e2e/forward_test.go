package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// inNetNS runs f in the pod's network namespace on the host.
func (n *node) inNetNS(p *testpod.Pod, f func() error) error {
	n.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		n.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(st.NetNS)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// forwardDial dials a port of the pod as containerd's port-forward does: localhost, in the pod's network namespace on
// the host.
func (n *node) forwardDial(p *testpod.Pod, host, port string) (conn net.Conn, err error) {
	n.Helper()
	err = n.inNetNS(p, func() error {
		if conn, err = net.DialTimeout("tcp", net.JoinHostPort(host, port), patience); err != nil {
			return err
		}
		return conn.SetDeadline(time.Now().Add(patience))
	})
	return conn, err
}

// forwarded sends a request through such a connection, ends that direction, and returns all that comes back.
func (n *node) forwarded(p *testpod.Pod, host, port string, request []byte) ([]byte, error) {
	n.Helper()
	conn, err := n.forwardDial(p, host, port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(request)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	answer, err := io.ReadAll(conn)
	return answer, errors.Join(err, <-sent)
}

// serveEnv makes this binary, in a container, the server that the tests of port-forward talk to.
const serveEnv = "KRUNPOD_E2E_SERVE"

// serve answers each connection on the ports 7000 (IPv4's loopback alone), 7001 (IPv6's alone) and 7002 (all) with the
// checksum of what it says, on 7003 with what it says.
func serve() {
	sum := func(conn net.Conn) {
		h := sha256.New()
		_, _ = io.Copy(h, conn)
		fmt.Fprintf(conn, "%x", h.Sum(nil))
	}
	echo := func(conn net.Conn) { _, _ = io.Copy(conn, conn) }
	for address, answer := range map[string]func(net.Conn){
		"127.0.0.1:7000": sum, "[::1]:7001": sum, ":7002": sum, ":7003": echo,
	} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					panic(err)
				}
				go func() {
					defer conn.Close()
					answer(conn)
				}()
			}
		}()
	}
	fmt.Println("serving")
	select {}
}

// server runs serve in a container.
func (n *node) server(p *testpod.Pod) {
	n.Helper()
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	config := testpod.ContainerConfig("server", "exec /e2e.test")
	config.Envs = []*runtime.KeyValue{{Key: serveEnv, Value: []byte("1")}}
	config.Mounts = []*runtime.Mount{{HostPath: self, ContainerPath: "/e2e.test", Readonly: true}}
	n.waitLog(n.container(p, config), "serving\n")
}

func TestPortForwardReachesTheGuestsLoopback(t *testing.T) {
	for name, c := range map[string]struct{ handler, way string }{
		"shim": {handler, "tap"}, "podsandbox": {"krun-podsandbox", "tap"}, "vnet": {handler, "vnet"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.podOf(c.handler, annotated("krun.dev/network", c.way))
			n.server(p)
			question := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
			sum := sha256.Sum256(question)
			want := hex.EncodeToString(sum[:])
			for _, c := range []struct{ host, port string }{
				{"127.0.0.1", "7000"}, {"::1", "7000"}, {"127.0.0.1", "7001"}, {"127.0.0.1", "7002"}, {"::1", "7002"},
			} {
				answer, err := n.forwarded(p, c.host, c.port, question)
				if err != nil || string(answer) != want {
					t.Errorf("%s, port %s: %q, %v", c.host, c.port, answer, err)
				}
			}
			if answer, err := n.forwarded(p, "127.0.0.1", "7003", question); err != nil || !bytes.Equal(answer, question) {
				t.Errorf("%d of %d bytes came back, %v", len(answer), len(question), err)
			}
			if _, err := n.forwarded(p, "127.0.0.1", "7999", nil); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a port on which nobody listens: %v", err)
			}
			errs := each(20, 20, func(int) error {
				answer, err := n.forwarded(p, "127.0.0.1", "7002", []byte("x"))
				if err == nil && !strings.HasPrefix(string(answer), "2d711642") {
					err = fmt.Errorf("answer %q", answer)
				}
				return err
			})
			if len(errs) > 0 {
				t.Errorf("in parallel: %v", some(errs))
			}
			open, err := n.forwardDial(p, "127.0.0.1", "7003")
			if err != nil {
				t.Fatal(err)
			}
			n.Cleanup(func() { // after the pod's removal, which comes first
				if _, err := open.Read(make([]byte, 1)); err == nil {
					t.Error("a connection outlived the pod")
				}
				open.Close()
			})
			n.removeNow(p)
		})
	}
}

func (n *node) removeNow(p *testpod.Pod) {
	n.Helper()
	if err := p.Remove(n.ctx); err != nil {
		n.Error(err)
	}
}

func TestPortForwardThroughCRI(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, web("web"))
	n.fetch(k, "127.0.0.1")
	crictl := exec.Command("crictl", "port-forward", p.ID, "18080:8080")
	if err := crictl.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = crictl.Process.Signal(syscall.SIGINT)
		_ = crictl.Wait() // ends with the signal
	}()
	var body []byte
	err := testpod.Poll(n.ctx, "nobody answers behind crictl port-forward", func() (bool, error) {
		resp, err := http.Get("http://127.0.0.1:18080/")
		if errors.Is(err, unix.ECONNREFUSED) {
			return false, nil // crictl does not listen yet
		}
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return true, err
	})
	if err != nil || string(body) != "from-web\n" {
		t.Errorf("%q, %v", body, err)
	}
}
