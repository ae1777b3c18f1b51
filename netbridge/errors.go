package netbridge

import (
	"errors"
	"fmt"
)

var (
	// ErrNetNS reports that a path does not lead to a network namespace that may be joined.
	ErrNetNS = errors.New("no usable network namespace")
	// ErrUnsupported reports an interface or a route that cannot be handed to a guest.
	ErrUnsupported = errors.New("cannot be handed to a microVM")
	// ErrBusy reports that a running microVM already holds the interfaces of the namespace.
	ErrBusy = errors.New("network namespace is in use by a running microVM")
)

// errRefused is the ErrNetNS of a path that never can have been joined.
var errRefused = fmt.Errorf("%w", ErrNetNS)
