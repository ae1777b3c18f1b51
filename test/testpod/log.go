package testpod

import (
	"fmt"
	"strings"
)

func contains(s, text string) bool { return strings.Contains(s, text) }

// ParseLog splits a log in CRI's format (a line is TIME STREAM TAG TEXT, TAG is F, or P for a part of a line; Kubernetes
// enhancement 2411) into its two streams.
func ParseLog(data []byte) (stdout, stderr string, err error) {
	var out, errs strings.Builder
	for _, line := range strings.SplitAfter(string(data), "\n") {
		if !strings.HasSuffix(line, "\n") {
			break // a line that is still being written
		}
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) != 4 {
			return "", "", fmt.Errorf("log line %q is not in CRI's format", line)
		}
		to := &out
		if fields[1] == "stderr" {
			to = &errs
		}
		to.WriteString(fields[3])
		if fields[2] == "F" {
			to.WriteByte('\n')
		}
	}
	return out.String(), errs.String(), nil
}
