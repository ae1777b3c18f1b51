// Package brokennode breaks a node that is a QEMU, as the emulator does by itself, and looks whether the runner of the tests
// (test/nodes) tells that from a failed test. It needs root and no hardware virtualisation; hack/check-node runs it.
package brokennode
