package nat

// slots is how many of something there may be at a time.
type slots chan struct{}

// take takes a slot, if there is one, and returns what gives it back.
func (s slots) take() (give func(), ok bool) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, true
	default:
		return nil, false
	}
}

// The connections of TCP and the sessions of UDP that there may be at a time. Each has a socket of the host; of one more the guest, or
// who connects to it, is refused. Those that the guest begins and those that come in through forwarded ports have budgets of their
// own: nobody outside can take the guest's.
const (
	maxConnections, maxSessions     = 384, 192
	maxForwarded, maxForwardedPeers = 128, 64
)

// budget is what one side may begin.
type budget struct{ connections, sessions slots }

func newBudget(connections, sessions int) budget {
	return budget{make(slots, connections), make(slots, sessions)}
}
