package krun

import "fmt"

// LibkrunVersion is the version of the crate in krun/libkrun; libkrun itself does not tell.
const LibkrunVersion = "1.19.7"

// Info is what a runner can say about the node without starting a VM.
type Info struct {
	Libkrun string `json:"libkrun"`
	// Features are what libkrun was built with.
	Features map[string]bool `json:"features"`
	// KVM is the version of /dev/kvm's interface, 0 where it does not answer.
	KVM      int    `json:"kvm"`
	MaxVCPUs int    `json:"maxVCPUs"`
	Firmware string `json:"firmware"`
	// Problems are what rules out a VM.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is one part that a VM needs and that is not as it must be.
type Problem struct {
	Part   Part   `json:"part"`
	Detail string `json:"detail"`
}

// Part is what a Problem is about.
type Part string

// The parts.
const (
	PartKVM      Part = "kvm"
	PartLibkrun  Part = "libkrun"
	PartFirmware Part = "libkrunfw"
)

// features are the numbers of krun_has_feature.
var features = map[string]uint64{
	"net": 0, "blk": 1, "gpu": 2, "snd": 3, "input": 4, "efi": 5, "tee": 6, "init-blob": 11,
}

// neededFeatures are those that every pod's VM uses: libkrun built without one has the function, which refuses.
var neededFeatures = []string{"net"}

// judgeFeatures adds what libkrun lacks to the problems.
func (i *Info) judgeFeatures() {
	for _, name := range neededFeatures {
		if !i.Features[name] {
			i.Problems = append(i.Problems, Problem{PartLibkrun, fmt.Sprintf("libkrun %s was built without %s", i.Libkrun, name)})
		}
	}
}
