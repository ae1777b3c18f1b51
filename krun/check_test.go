package krun

import (
	"strings"
	"testing"
)

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
