package krun

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// LibkrunVersion is what this build was linked with: the crate in krun/libkrun or, set by the linker, the library of the
// system that hack/libkrun chose. libkrun itself does not tell.
var LibkrunVersion = "1.19.7"

// Info is what a runner can say about the node without starting a VM.
type Info struct {
	// Libkrun is the version, and LibkrunPath the file of a library that is not part of the runner.
	Libkrun     string `json:"libkrun"`
	LibkrunPath string `json:"libkrunPath,omitempty"`
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

// fileVersion is the version at the end of a library's name.
var fileVersion = regexp.MustCompile(`\.so\.(\d+\.\d+\.\d+)$`)

// useLibkrun notes which file libkrun was loaded from: another than this build was linked with may be there by now. A
// problem is one that is older; what it lacks would be missed in the middle of a start.
func (i *Info) useLibkrun(path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	i.LibkrunPath = path
	if m := fileVersion.FindStringSubmatch(path); m != nil {
		i.Libkrun = m[1]
	}
	if slices.Compare(numbers(i.Libkrun), numbers(LibkrunVersion)) < 0 {
		i.Problems = append(i.Problems, Problem{PartLibkrun, fmt.Sprintf("libkrun %s in %s is older than %s, which this krun-runner "+
			"was built with: install that or a newer one, or build krun-runner with KRUNPOD_LIBKRUN=crate", i.Libkrun, path, LibkrunVersion)})
	}
}

func numbers(version string) (list []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		list = append(list, n)
	}
	return list
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
