//go:build !race

package main

// floodMemory bounds what a flood adds to the process, in MiB: a full table of connections, and at a gateway the buffers of the
// connections that it makes.
const floodMemory = 64
