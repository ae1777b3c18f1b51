package krunctl

// Report is the answer of krunctl check.
type Report struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Check is one thing that krunctl check looked at.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Remedy says what to do when it is not OK.
	Remedy string `json:"remedy,omitempty"`
	// TimedOut says that it is not OK because it took too long, which a busy node can be the cause of.
	TimedOut bool `json:"timedOut,omitempty"`
}

// Life is how far a sandbox of krunctl ps and krunctl inspect is.
type Life struct {
	// Alive says that its microVM runs.
	Alive bool `json:"alive"`
	// Status is one of those below, or how the sandbox ended (sandbox.End).
	Status string `json:"status"`
}

// What a Status can be but an end. A dead sandbox ended with its shim, before either could say how.
const (
	Starting = "starting"
	Running  = "running"
	Dead     = "dead"
)

// InUse reports whether something would be lost with the sandbox: one that has ended is only kept until its pod is deleted.
func (l Life) InUse() bool { return l.Alive || l.Status == Starting }
