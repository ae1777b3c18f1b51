package gateway

import "net"

// Service answers a connection of the guest, and closes it.
type Service func(net.Conn)

// Services are those at the gateway's own address, by TCP port.
type Services map[uint16]Service
