package gateway

import "net"

// Service answers a connection of the guest, which is closed when it returns.
type Service func(net.Conn)

// Services are those at the gateway's own address, by TCP port.
type Services map[uint16]Service
