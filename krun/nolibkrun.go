//go:build !(linux && cgo && krun)

package krun

// VM stands for the one of a build with libkrun.
type VM struct{}

// Load returns ErrNoLibkrun.
func Load(*Config) (*VM, error) { return nil, ErrNoLibkrun }

// Enter returns ErrNoLibkrun.
func (*VM) Enter(*Config) error { return ErrNoLibkrun }

// Inspect says that there is no libkrun.
func Inspect(string) Info { return Info{Problems: []Problem{{PartLibkrun, ErrNoLibkrun.Error()}}} }
