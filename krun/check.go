package krun

// LibkrunVersion is the version of the crate in krun/libkrun; libkrun itself does not tell.
const LibkrunVersion = "1.19.7"

// Info is what a runner can say about the node without starting a VM.
type Info struct {
	Libkrun  string          `json:"libkrun"`
	Features map[string]bool `json:"features"`
	// KVM is the version of /dev/kvm's interface, 0 where it does not answer.
	KVM      int      `json:"kvm"`
	MaxVCPUs int      `json:"maxVCPUs"`
	Firmware string   `json:"firmware"`
	Problems []string `json:"problems,omitempty"`
}

// features are the numbers of krun_has_feature.
var features = map[string]uint64{
	"net": 0, "blk": 1, "gpu": 2, "snd": 3, "input": 4, "efi": 5, "tee": 6, "init-blob": 11,
}
