package main

import (
	"encoding/json"
	"errors"
	"io"

	"krun.dev/krunpod/krun"
)

// check prints what krun.Inspect finds; it is an error if that rules out a VM.
func check(args []string, out io.Writer) error {
	firmware := ""
	if len(args) > 0 {
		firmware = args[0]
	}
	info := krun.Inspect(firmware)
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(info); err != nil {
		return err
	}
	if len(info.Problems) > 0 {
		return errors.New("this node cannot run a VM: " + info.Problems[0].Detail)
	}
	return nil
}
