//go:build race

package main

// floodMemory is with the race detector, which remembers of each word who used it.
const floodMemory = 500
