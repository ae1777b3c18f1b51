// Package deadline is the time until which tests are begun.
//
// Enters: KRUNPOD_TEST_UNTIL. Leaves: whether it is too late. Nobody who runs tests by hand has one; CI does, and a machine several
// times slower than usual reaches it: what has run by then counts, and the rest is named as not run.
package deadline
