// Package api is the protocol between the shim on the host and the agent in the guest.
//
// Enters and leaves: protobuf messages over ttrpc (containerd's Task API v3 and the Agent service of this package),
// and stdio frames (package stream), all on vsock connections that the guest opens and libkrun forwards to UNIX
// sockets of the host. Must never happen here: a type that only one side knows, or a value from the guest that the
// host uses as a path, length or id without a check.
package api

//go:generate protoc -I../.. -I/usr/include --go_out=../.. --go_opt=module=krun.dev/krunpod --go-ttrpc_out=../.. --go-ttrpc_opt=module=krun.dev/krunpod agent/api/agent.proto
