package deadline

import "testing"

func TestFromEnv(t *testing.T) {
	for _, tc := range []struct {
		env    string
		passed bool
	}{{"", false}, {"1", true}, {"99999999999", false}} {
		t.Setenv(Env, tc.env)
		if d, err := FromEnv(); err != nil || d.Passed() != tc.passed || d.IsSet() != (tc.env != "") {
			t.Errorf("%q: %v, %v", tc.env, d, err)
		}
	}
	for _, bad := range []string{"soon", "12:00", "1e9"} {
		t.Setenv(Env, bad)
		if d, err := FromEnv(); err == nil {
			t.Errorf("%q is %v, want an error", bad, d)
		}
	}
}
