package e2e

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// stubborn ignores TERM.
const stubborn = "trap '' TERM; echo up; while :; do sleep 1; done"

// removeAs removes the pod of a configuration as the kubelet does: whatever is listed under its name.
func (n *node) removeAs(config *runtime.PodSandboxConfig) {
	n.Helper()
	list, err := n.cri.Runtime.ListPodSandbox(n.ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		n.Fatal(err)
	}
	for _, item := range list.Items {
		if item.Metadata.Uid != config.Metadata.Uid {
			continue
		}
		if _, err := n.cri.Runtime.StopPodSandbox(n.ctx, &runtime.StopPodSandboxRequest{PodSandboxId: item.Id}); err != nil {
			n.Error(err)
		}
		if _, err := n.cri.Runtime.RemovePodSandbox(n.ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: item.Id}); err != nil {
			n.Error(err)
		}
	}
	if err := os.RemoveAll(config.LogDirectory); err != nil {
		n.Error(err)
	}
}

func TestRemoveWhileStopping(t *testing.T) {
	n := newNode(t)
	config := n.cri.PodConfig("pod")
	p, err := n.cri.Run(n.ctx, handler, config)
	if err != nil {
		t.Fatal(err)
	}
	defer n.removeAs(config)
	k := n.container(p, testpod.ContainerConfig("stubborn", stubborn))
	n.waitLog(k, "up\n")
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Stop(n.ctx, 20) }) // interrupted by the removal, or not
	time.Sleep(time.Second)
	for range 2 {
		wg.Go(func() {
			err := p.Remove(n.ctx)
			if err != nil && (strings.Contains(err.Error(), "plugin type=") || strings.Contains(err.Error(), "shutdown sandbox: ttrpc: closed")) {
				// The CNI bridge plugin looks for the interface and then deletes it, and containerd looks for the shim and then
				// tells it to end: of two at once, one may find it gone. That is between containerd and them; the kubelet asks
				// again, and then it must work.
				err = p.Remove(n.ctx)
			}
			if err != nil {
				t.Errorf("remove while the container is being stopped: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestKillOfAContainerWhoseLogPipeIsFull(t *testing.T) {
	n := newNode(t)
	task := n.startTask("full", "/bin/sh", "-c", "yes; exec sleep 1000")
	for _, p := range []string{task.stdout, task.stderr} {
		f, err := os.OpenFile(p, os.O_RDWR|unix.O_NONBLOCK, 0) // opened, and never read
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	task.start()
	time.Sleep(5 * time.Second) // pipe and windows fill
	began := time.Now()
	if err := task.task.Kill(task.ctx, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := task.wait(); exit != 137 {
		t.Errorf("exit code %d", exit)
	}
	t.Logf("the exit event came %v after the kill", time.Since(began).Round(time.Millisecond))
}

func TestExecWhoseClientVanishesEndsInTheGuest(t *testing.T) {
	n := newNode(t)
	k := n.container(n.pod(), testpod.ContainerConfig("main", "exec sleep 1000"))
	ctx, cancel := context.WithTimeout(n.ctx, 3*time.Second)
	defer cancel()
	if _, _, _, err := k.Exec(ctx, "exec sleep 4321"); err == nil {
		t.Fatal("the exec ended by itself")
	}
	ctx, cancel = context.WithTimeout(n.ctx, patience)
	defer cancel()
	err := testpod.Poll(ctx, "the process of the exec goes on", func() (bool, error) {
		out, _, _, err := k.Exec(ctx, "ps -o args")
		return !strings.Contains(out, "sleep 4321"), err
	})
	if err != nil {
		t.Error(err)
	}
}
