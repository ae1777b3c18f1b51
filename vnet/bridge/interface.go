package bridge

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// queueSize bounds the frames that wait here, in bytes of kernel memory; what comes beyond it is lost. The kernel doubles it
// (socket(7), SO_RCVBUF).
const queueSize = 4 << 20

// Interface opens the interface with a name in the network namespace of the calling thread, as a packet socket. CAP_NET_RAW is
// needed, and CAP_NET_ADMIN for the whole queue; neither is once it is open.
func Interface(name string) (_ *Port, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	// Without a protocol it gets nothing until it is bound, so nothing of another interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket for %s: %w (CAP_NET_RAW is needed)", name, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for option, what := range map[int]string{
		unix.PACKET_VNET_HDR: "PACKET_VNET_HDR",
		// What this host sends itself, on behalf of the pod or by this port, is no frame from the other side. Linux 4.20.
		unix.PACKET_IGNORE_OUTGOING: "PACKET_IGNORE_OUTGOING",
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			return nil, fmt.Errorf("packet socket for %s: %s: %w", name, what, err)
		}
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueSize) != nil {
		// Up to net.core.rmem_max.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueSize); err != nil {
			return nil, fmt.Errorf("packet socket for %s: SO_RCVBUF: %w", name, err)
		}
	}
	if err := refuseTags(fd); err != nil {
		return nil, fmt.Errorf("packet socket for %s: %w", name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
		return nil, fmt.Errorf("packet socket for %s: bind: %w", name, err)
	}
	s, err := newPacketSocket(os.NewFile(uintptr(fd), name))
	if err != nil {
		return nil, fmt.Errorf("packet socket for %s: %w", name, err)
	}
	return &Port{name: name, carrier: s, socket: s}, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// refuseTags makes the socket pass over frames with a VLAN tag: the kernel has taken it off (skb_vlan_untag), and
// without it they would leave as frames of another network.
func refuseTags(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
		return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	return nil
}
