// Package stream carries one stdio stream over one vsock connection, with a credit window of its own.
//
// Enters: bytes of a process or a client. Leaves: the same bytes, all of them, in order, then the end. libkrun's
// vsock proxy writes to the host with a blocking send(2) on the device's only thread (krun-devices 1.19.7,
// vsock/unix.rs), so a host end that stops reading would stall every stream of the VM: each end therefore drains its
// connection at once into a buffer no larger than Window and lets the other send on by giving credit as its reader
// takes bytes. Must never happen here: a read of the connection that waits for the reader of the stream, or a
// buffer that grows by what the other end says.
package stream
