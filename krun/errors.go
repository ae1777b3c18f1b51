package krun

import (
	"errors"
	"syscall"
)

// ErrNoLibkrun: this binary was built without libkrun (build tag krun, CGO_ENABLED=1).
var ErrNoLibkrun = errors.New("built without libkrun: build with CGO_ENABLED=1 and -tags krun")

// CallError is a libkrun function that failed.
type CallError struct {
	// Function is the function's name, with the object it was called for.
	Function string
	Errno    syscall.Errno
}

func (e *CallError) Error() string {
	return "libkrun: " + e.Function + ": " + e.Errno.Error()
}

func (e *CallError) Unwrap() error { return e.Errno }
