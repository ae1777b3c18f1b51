package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// skip is one line of hack/conformance.skip: "HANDLER: REGEXP  # REASON". The handler krun stands for both sandboxers.
type skip struct {
	handler string
	specs   *regexp.Regexp
	reason  string
}

var skipLine = regexp.MustCompile(`^([a-z-]+): (.*\S)  +# (.*\S)$`)

func readSkips(path string) ([]skip, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []skip
	for i, line := range strings.Split(string(data), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := skipLine.FindStringSubmatch(line)
		if f == nil || f[1] != "all" && f[1] != "krun" {
			return nil, fmt.Errorf("%s:%d: want \"all: REGEXP  # REASON\" or \"krun: REGEXP  # REASON\"", path, i+1)
		}
		specs, err := regexp.Compile(f[2])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		all = append(all, skip{f[1], specs, f[3]})
	}
	return all, nil
}

// reasonToSkip says why this spec is not run for this handler, or "".
func reasonToSkip(skips []skip, handler string, s spec) string {
	for _, k := range skips {
		if (k.handler == "all" || strings.HasPrefix(handler, k.handler)) && k.specs.MatchString(s.name) {
			return k.reason
		}
	}
	return ""
}

// unused names a line that leaves nothing out, so that none outlives its spec.
func unused(skips []skip, specs []spec) error {
	for _, k := range skips {
		used := false
		for _, s := range specs {
			used = used || k.specs.MatchString(s.name)
		}
		if !used {
			return fmt.Errorf("conformance.skip: %q matches no spec of the suite: take the line out", k.specs)
		}
	}
	return nil
}
