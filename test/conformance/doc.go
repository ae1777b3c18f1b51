// Command conformance runs critest, the conformance suite of CRI, against the runtime handlers on the test nodes, and
// says where they differ.
//
// Enters: handlers, each with an optional regular expression of specs, and the specs that are left out with the reason
// (hack/conformance.skip). Leaves: out/conformance.json with each spec's verdict and seconds for each handler, a JUnit
// file for each handler, the suite's own logs, and the line "N passed, N failed, N skipped". With -write-docs it writes
// docs/conformance.md from that report. Which specs there are, and how each ended, is read from the suite's own reports.
package main
