package nat

import (
	"context"
	"errors"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// endTimeout is how long the guest may take for what is under way to it when a connection has been closed. By TCP it could take
	// forever: a window of zero is probed for as long as it answers.
	endTimeout = 5 * time.Minute
	// timeWait is for what is late on the way, which is a socket here; the default is a minute (RFC 9293, section 3.4.2: of a network).
	timeWait = 100 * time.Millisecond
	// endTick is how often the end is looked for that nobody tells of.
	endTick = time.Second
	// backlog is how many connections of the guest to a service may wait to be answered.
	backlog = 32
)

// conn is a connection with the guest. Its endpoint, with its buffers, lives on in the stack after Close, for as long as the guest
// likes: who counts connections calls finish.
type conn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *conn {
	return &conn{gonet.NewTCPConn(wq, ep), ep, wq}
}

// finish closes c, and returns when nothing is left of it. After a time, or with ctx, the guest is told that it is over.
func (c *conn) finish(ctx context.Context, patience time.Duration) {
	event, told := waiter.NewChannelEntry(waiter.EventHUp)
	c.wq.EventRegister(&event)
	defer c.wq.EventUnregister(&event)
	c.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(endTick)
	defer tick.Stop()
	for !c.ended() {
		select {
		case <-told:
		case <-tick.C:
		case <-ctx.Done():
			c.ep.Abort()
			return
		}
	}
}

func (c *conn) ended() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// dialGuest connects to a port of the guest.
func (g *Gateway) dialGuest(port uint16) (*conn, error) {
	ctx, cancel := context.WithTimeout(g.running, dialTimeout)
	defer cancel()
	wq := new(waiter.Queue)
	ep, failed := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	if failed != nil {
		return nil, errors.New(failed.String())
	}
	event, told := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&event)
	defer wq.EventUnregister(&event)
	failed = ep.Connect(g.guest(port))
	if _, ok := failed.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		case <-told:
		}
		failed = ep.LastError()
	}
	if failed != nil {
		ep.Close()
		return nil, errors.New(failed.String())
	}
	return newConn(wq, ep), nil
}

// listener is a TCP port of the gateway.
type listener struct {
	ep tcpip.Endpoint
	wq *waiter.Queue
}

func (g *Gateway) listenTCP(port uint16) (_ *listener, err error) {
	l := &listener{wq: new(waiter.Queue)}
	ep, failed := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, l.wq)
	if failed != nil {
		return nil, errors.New(failed.String())
	}
	l.ep = ep
	if failed = ep.Bind(g.at(g.config.Address().Addr(), port)); failed == nil {
		failed = ep.Listen(backlog)
	}
	if failed != nil {
		ep.Close()
		return nil, errors.New(failed.String())
	}
	return l, nil
}

// accept waits for a connection, until ctx ends.
func (l *listener) accept(ctx context.Context) (*conn, error) {
	event, told := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&event)
	defer l.wq.EventUnregister(&event)
	for {
		ep, wq, failed := l.ep.Accept(nil)
		if failed == nil {
			return newConn(wq, ep), nil
		}
		if _, ok := failed.(*tcpip.ErrWouldBlock); !ok {
			return nil, errors.New(failed.String())
		}
		select {
		case <-told:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
