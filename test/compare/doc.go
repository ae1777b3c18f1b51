// Package compare tells where two runtimes differ, and which of that is expected.
//
// Enters: what two runtimes showed, as values under stable keys, and a table of the differences that have a reason.
// Leaves: one sentence for each difference that the table lacks, and for each line of the table that no longer holds.
// It knows nothing of containers.
package compare
