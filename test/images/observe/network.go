package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// network is what the interfaces and routes are; names of addresses that differ from pod to pod are the reader's to
// change.
func network() {
	interfaces, err := net.Interfaces()
	if err != nil {
		seeError("link", err)
	}
	for _, i := range interfaces {
		see("link."+i.Name, fmt.Sprintf("mtu %d %v address of %d bytes", i.MTU, i.Flags, len(i.HardwareAddr)))
		for _, name := range []string{"type", "tx_queue_len", "carrier", "operstate", "addr_assign_type"} {
			seeFile("link."+i.Name+"."+name, "/sys/class/net/"+i.Name+"/"+name)
		}
		addrs, err := i.Addrs()
		if err != nil {
			seeError("address."+i.Name, err)
		}
		for n, a := range addrs {
			text := a.String()
			if ip, net, err := net.ParseCIDR(text); err == nil && ip.IsLinkLocalUnicast() {
				text = "link-local in " + net.String()
			}
			see(fmt.Sprint("address.", i.Name, ".", n), text)
		}
	}
	see("links", fmt.Sprint(len(interfaces)))
	for _, name := range []string{"route", "ipv6_route"} {
		data, err := os.ReadFile("/proc/net/" + name)
		if err != nil {
			seeError(name, err)
		}
		n := 0
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if name == "route" && f[0] != "Iface" {
				// Interface, destination, gateway, flags, metric, mask.
				see(fmt.Sprint(name, ".", n), strings.Join([]string{f[0], f[1], f[2], f[3], f[6], f[7]}, " "))
				n++
			}
			if name == "ipv6_route" && strings.HasSuffix(f[len(f)-1], "eth0") {
				n++
			}
		}
		see(name+"s", fmt.Sprint(n))
	}
}
