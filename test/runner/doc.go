// Command runner runs the end-to-end tests on the nodes, test by test from one queue, and reports them.
//
// Enters: the test binary and the numbers of the nodes. Leaves: a JUnit file, a log of each test and the line
// "N passed, N failed, N skipped". A test that a broken node took down is run once more on a fresh one; a guest that
// does not answer is a failure like any other unless its virtual CPU shows the emulator's signature (fault.go).
package main
