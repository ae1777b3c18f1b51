// Command runner runs the end-to-end tests on the nodes, test by test from one queue (test/nodes), and reports them.
//
// Enters: the test binary and the numbers of the nodes. Leaves: a JUnit file, a log of each failed test and the line
// "N passed, N failed, N skipped".
package main
