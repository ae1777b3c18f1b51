package vnet_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/netip"

	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/nat"
	"krun.dev/krunpod/vnet/policy"
)

// A VM of one's own gets a network behind a policy, without root, interfaces or another process. The other end of the guest's
// connection goes to the VM, such as to libkrun's krun_add_net_unixstream.
func ExampleOpen() {
	guest, vm := net.Pipe()
	defer vm.Close()
	config := &vnet.Config{
		Gateway:     &gateway.Config{Subnet: netip.MustParsePrefix("10.20.0.0/24")},
		Policy:      map[string]string{policy.AnnotationEgressAllow: "api.example.org:443, 10.20.0.1:80"},
		Nameservers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
	}
	v, err := vnet.Open(config, vnet.Hooks{
		Guest:   guest,
		Gateway: func(c gateway.Config, s gateway.Services) (vnet.Gateway, error) { return nat.Open(c, s) },
		Services: gateway.Services{80: func(conn net.Conn) {
			io.WriteString(conn, "what the program has to say to its guest")
		}},
		Refused: func(name string, _ int) bool {
			log.Print("the guest may not know ", name)
			return true
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := v.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
