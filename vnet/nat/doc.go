// Package nat is the gateway of a network that a guest has for itself (package gateway): it leases the guest its address, carries its
// connections and datagrams on through sockets of the host, and those of forwarded ports to the guest. It needs no root and no
// interface.
//
// Enters: frames of the guest that a firewall has let pass (package bridge; gateway.Config.Guard), and what arrives at forwarded
// ports. Leaves: frames for the guest, and ordinary sockets of the process. Must never happen here: memory, sockets or goroutines
// without a bound, whatever the guest sends.
//
// The stack is gVisor's. The gateway of gvisor-tap-vsock has the same, and is not used: its switch reads what comes as a frame
// whatever its length, its tables of UDP sessions and dials have no bound that a hostile guest could not reach, with 128 KiB for a
// session, and its port forwarder brings an SSH client into each sandbox's process.
package nat
