package testpod

import "testing"

func TestParseLogJoinsPartsAndSplitsStreams(t *testing.T) {
	out, errs, err := ParseLog([]byte("t stdout P he\nt stderr F oops\nt stdout F llo\nt stdout F \nt stdout F unfinished"))
	if err != nil || out != "hello\n\n" || errs != "oops\n" {
		t.Errorf("stdout %q, stderr %q, error %v", out, errs, err)
	}
	if _, _, err := ParseLog([]byte("nonsense\n")); err == nil {
		t.Error("a line that is not in CRI's format was accepted")
	}
}
