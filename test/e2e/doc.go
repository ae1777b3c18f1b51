// Package e2e holds the tests that need a node: containerd, CNI and a kernel that can run microVMs. The runner in
// test/runner builds them into one binary, puts it on the nodes and runs it there test by test; on a machine of one's
// own, go test ./test/e2e does the same.
//
// Every test begins and ends with an inventory of the node (testpod.TakeInventory): what it leaves behind fails it.
package e2e
