package deadline

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// Env is the deadline in seconds since 1970; without it there is none.
	Env = "KRUNPOD_TEST_UNTIL"
	// Reason explains a test that was not begun in time; hack/test counts those in the reports.
	Reason = "not run: the time for tests was over (" + Env + ")"
)

// Deadline is a time, and never comes when it is zero.
type Deadline struct{ at time.Time }

// FromEnv reads Env.
func FromEnv() (Deadline, error) {
	s := os.Getenv(Env)
	if s == "" {
		return Deadline{}, nil
	}
	at, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return Deadline{}, fmt.Errorf("%s is %q: want seconds since 1970, as date +%%s prints them", Env, s)
	}
	return Deadline{time.Unix(at, 0)}, nil
}

// IsSet says whether there is one.
func (d Deadline) IsSet() bool { return !d.at.IsZero() }

// Passed says whether a test is not to be begun any more.
func (d Deadline) Passed() bool { return d.IsSet() && !time.Now().Before(d.at) }
