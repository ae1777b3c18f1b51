// Command images builds the container images of the tests from Debian packages and binaries of ours, reproducibly and
// without a container engine, as one archive that ctr images import reads.
//
// Enters: the names in catalog.go. Leaves: an archive. Must never happen here: a download from a container registry.
package main
