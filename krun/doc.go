// Package krun is the microVM: its configuration and, in the cgo part, the calls that make libkrun run it.
//
// Enters: a Config, written by package sandbox and read by cmd/krun-runner. Leaves: nothing; Enter replaces the
// process by the VM and its exit is the VM's. Must never happen here: a default that opens a way to the host (TSI,
// an implicit vsock, anything of the host but the agent in the guest's root).
package krun
