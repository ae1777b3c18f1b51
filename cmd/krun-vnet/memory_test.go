//go:build !race

package main

// floodMemory bounds what a flood adds to the process, in MiB: a full table of connections, and at a gateway the buffers of as many
// connections and flows as there may be, 120 and 48 MiB. Without a bound it would be a GiB within the flood's time.
const floodMemory = 192
