package netbridge

import "errors"

var (
	// ErrNetNS reports that a path does not lead to a network namespace that may be joined.
	ErrNetNS = errors.New("no usable network namespace")
	// ErrUnsupported reports an interface or a route that cannot be handed to a guest.
	ErrUnsupported = errors.New("cannot be handed to a microVM")
	// ErrBusy reports that a running microVM already holds the interfaces of the namespace.
	ErrBusy = errors.New("network namespace is in use by a running microVM")
)
