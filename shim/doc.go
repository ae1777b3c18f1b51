// Package shim is containerd's runtime v2 contract for krun: the start and delete actions, the task and sandbox
// services, events and stdio.
//
// Enters: requests of containerd over ttrpc. Leaves: the same requests translated for the agent, and events. A
// service here only translates and forwards: what a sandbox is lives in package sandbox, what Kubernetes meant in
// package cri. Must never happen here: an answer to containerd that repeats a process id or path of the guest
// (process ids are the shim's own, see pids.go), or a call into the guest without a bound in time.
package shim
