package krun

import (
	"os"
	"strings"
	"testing"
)

func TestLibkrunOfTheSystemIsTheOneThatIsLoaded(t *testing.T) {
	built := LibkrunVersion
	t.Cleanup(func() { LibkrunVersion = built })
	LibkrunVersion = "1.20.0"
	for version, problems := range map[string]int{"1.20.0": 0, "1.100.1": 0, "2.0.0": 0, "1.19.9": 1} {
		dir := t.TempDir()
		file := dir + "/libkrun.so." + version
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, dir+"/libkrun.so.1"); err != nil {
			t.Fatal(err)
		}
		info := Info{Libkrun: LibkrunVersion}
		info.useLibkrun(dir + "/libkrun.so.1")
		if info.Libkrun != version || info.LibkrunPath != file || len(info.Problems) != problems {
			t.Errorf("%s: %+v", version, info)
		}
		if problems > 0 && !strings.Contains(info.Problems[0].Detail, "KRUNPOD_LIBKRUN=crate") {
			t.Errorf("the problem does not say what to do: %s", info.Problems[0].Detail)
		}
	}
}

func TestLibkrunWhoseFileTellsNoVersionIsThatOfTheBuild(t *testing.T) {
	info := Info{Libkrun: LibkrunVersion}
	info.useLibkrun("/nowhere/libkrun.so.1")
	if info.Libkrun != LibkrunVersion || info.LibkrunPath != "/nowhere/libkrun.so.1" || len(info.Problems) != 0 {
		t.Errorf("%+v", info)
	}
}

func TestFeatureThatIsNeededAndNotThereIsAProblem(t *testing.T) {
	whole := Info{Libkrun: "1.0", Features: map[string]bool{"net": true, "gpu": false}}
	if whole.judgeFeatures(); len(whole.Problems) > 0 {
		t.Errorf("with all that is needed: %+v", whole.Problems)
	}
	lacking := Info{Libkrun: "1.0", Features: map[string]bool{"net": false, "gpu": true}}
	lacking.judgeFeatures()
	if len(lacking.Problems) != 1 || lacking.Problems[0].Part != PartLibkrun || !strings.Contains(lacking.Problems[0].Detail, "without net") {
		t.Errorf("without net: %+v", lacking.Problems)
	}
}

// A feature that is needed has a number to ask for, or it would always be missing.
func TestNeededFeaturesAreAskedFor(t *testing.T) {
	for _, name := range neededFeatures {
		if _, ok := features[name]; !ok {
			t.Errorf("%s has no number", name)
		}
	}
}
