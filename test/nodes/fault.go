package nodes

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// watchEvery is how often a node is looked at while a test runs.
	watchEvery = 5 * time.Second
	// signatureRate is how fast the counters of a virtual CPU that the emulator has lost grow, a second; they grow by
	// tens of thousands, and those of a healthy one by far less while its other counters move too.
	signatureRate = 5000
)

// watch looks at the node until ended is closed, and returns how it broke, or "".
func watch(ctx context.Context, n Node, ended <-chan struct{}) string {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before map[string]counters
	at := time.Now()
	for {
		select {
		case <-ended:
			return ""
		case <-ctx.Done():
			return ""
		case <-tick.C:
		}
		switch s := n.status(ctx); s {
		case "frozen", "panicked", "down":
			return "the node is " + s
		}
		now := n.counters(ctx)
		if vm := lost(before, now, time.Since(at)); vm != "" {
			return fmt.Sprintf("the emulator lost the virtual CPU of microVM %s: its guest page faults and emulated "+
				"instructions race while interrupts and exits stand still", vm)
		}
		before, at = now, time.Now()
	}
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
