// Package nodes runs tasks on the test nodes of hack/node from one queue, and tells a broken node from a failed test.
//
// Enters: tasks, and the numbers of the nodes. Leaves: one result for each test of each task, the logs of what failed,
// and JUnit files. A task that a broken node took down is run once more on a fresh one; a guest that does not answer is
// a failure like any other unless its virtual CPU shows the emulator's signature (fault.go).
package nodes
