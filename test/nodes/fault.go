package nodes

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// watchEvery is how often a node is looked at while a test runs.
	watchEvery = 2 * time.Second
	// countEvery is how far apart the looks at the counters are, which need a command on the node.
	countEvery = 5 * time.Second
	// answerTime is what a node may take to answer a command before its state is asked. It is more than the age at which
	// a heartbeat tells a frozen node (HEARTBEAT_TIMEOUT, hack/lib/node-qemu.sh).
	answerTime = 15 * time.Second
	// signatureRate is how fast the counters of a virtual CPU that the emulator has lost grow, a second; they grow by
	// tens of thousands, and those of a healthy one by far less while its other counters move too.
	signatureRate = 5000
)

// watch looks at the node until ended is closed, and returns how it broke, or "".
func watch(ctx context.Context, n Node, ended <-chan struct{}) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	// Apart, since a node that is frozen does not answer the command for its counters.
	faults := make(chan string, 2)
	go func() { faults <- watchState(ctx, n) }()
	go func() { faults <- watchCounters(ctx, n) }()
	fault := <-faults
	if fault != "" {
		cancel()
	}
	return cmp.Or(fault, <-faults)
}

func watchState(ctx context.Context, n Node) string {
	for pause(ctx, watchEvery) {
		if fault := broken(n.status(ctx)); fault != "" {
			return fault
		}
	}
	return ""
}

func watchCounters(ctx context.Context, n Node) string {
	var before map[string]counters
	at := time.Now()
	for pause(ctx, countEvery) {
		now := n.counters(ctx)
		if vm := lost(before, now, time.Since(at)); vm != "" {
			return fmt.Sprintf("the emulator lost the virtual CPU of microVM %s: its guest page faults and emulated "+
				"instructions race while interrupts and exits stand still", vm)
		}
		before, at = now, time.Now()
	}
	return ""
}

// pause reports whether ctx still holds afterwards.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// broken says how a node is that is certainly broken, by its status; "" of any other, and of one that could not be had: a
// machine with much to do is no reason to run a failed test again.
func broken(status string) string {
	switch status {
	case "frozen", "panicked", "down":
		return "the node is " + status
	}
	return ""
}

// diagnose says how the node is broken after a task that failed, or "": the connection may have gone with it, a moment before
// its heartbeat is missed.
func (n Node) diagnose(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime+statusTime)
	defer cancel()
	answer, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if n.Exec(answer, "true").Run() == nil {
		return ""
	}
	<-answer.Done()
	return broken(n.status(ctx))
}

// counters are what KVM counts for one VM, Documentation/virt/kvm (debugfs kvm/PID-FD/).
type counters struct{ pfGuest, insnEmulation, irqInjections, ioExits, mmioExits uint64 }

// counters reads those of every microVM on the node; none when it cannot.
func (n Node) counters(ctx context.Context) map[string]counters {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	const script = `cd /sys/kernel/debug/kvm 2>/dev/null && for d in *-*; do [ -d "$d" ] && echo "$d $(cat "$d/pf_guest" "$d/insn_emulation" "$d/irq_injections" "$d/io_exits" "$d/mmio_exits" | tr '\n' ' ')"; done; true`
	out, err := n.Exec(ctx, "sh", "-c", script).Output()
	if err != nil {
		return nil
	}
	return parseCounters(string(out))
}

func parseCounters(text string) map[string]counters {
	vms := map[string]counters{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 6 {
			continue
		}
		var v [5]uint64
		ok := true
		for i := range v {
			var err error
			v[i], err = strconv.ParseUint(f[i+1], 10, 64)
			ok = ok && err == nil
		}
		if ok {
			vms[f[0]] = counters{v[0], v[1], v[2], v[3], v[4]}
		}
	}
	return vms
}

// lost names a VM whose virtual CPU shows the emulator's fault between two looks.
func lost(before, now map[string]counters, took time.Duration) string {
	floor := uint64(signatureRate * took.Seconds())
	for vm, b := range before {
		a, ok := now[vm]
		if !ok || floor == 0 {
			continue
		}
		racing := a.pfGuest-b.pfGuest > floor && a.insnEmulation-b.insnEmulation > floor
		still := a.irqInjections == b.irqInjections && a.ioExits == b.ioExits && a.mmioExits == b.mmioExits
		if racing && still {
			return vm
		}
	}
	return ""
}
