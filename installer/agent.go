package installer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"krun.dev/krunpod/installer/kube"
)

// What stands on a node.
const (
	// LabelRuntime is labelReady on a node that runs krun pods; the RuntimeClass selects by it.
	LabelRuntime = "krun.dev/runtime"
	// AnnotationReason says why a node is not ready.
	AnnotationReason = "krun.dev/not-ready"
	// AnnotationVersion is on each node that has an installation, or may have one: it is underWay while the first is made.
	AnnotationVersion = "krun.dev/installed"
	underWay          = "installing"
	// AnnotationUninstall asks the installer on a node to uninstall; Retire sets it.
	AnnotationUninstall = "krun.dev/uninstall"
)

// What LabelRuntime says. A node that was ready keeps the label while it has the installation, since pods may run there and
// metrics of them are served.
const (
	labelReady    = "ready"
	labelNotReady = "not-ready"
)

// requestForce is an AnnotationUninstall that does not wait for pods.
const requestForce = "force"

const (
	// maxRetry is the longest wait for the next try on a node that is not ready: the first is Agent.Retry, each is twice the one before.
	maxRetry = time.Hour
	// recheck is when a node that is ready is looked at again.
	recheck = 24 * time.Hour
	// retired is how long an uninstalled node stays so while its installer goes on: its pod is deleted within that time, or
	// the removal was given up elsewhere.
	retired = 15 * time.Minute
	// maxUndecided is how many checks in a row may take too long before a node that was ready counts as one that is not.
	maxUndecided = 3
)

// Agent keeps one node installed, until it is asked to uninstall.
type Agent struct {
	Installer *Installer
	Kube      *kube.Client
	Node      string
	// Poll is how often the node's annotations are read.
	Poll time.Duration
	// Retry is how soon an installation is tried again that did not make the node ready.
	Retry time.Duration
	// Settled is called when the first decision about the node has been recorded.
	Settled func() error

	// before is the node as this agent found it, and standing says that the last outcome was a node that is ready.
	before   *kube.Node
	standing bool

	retry     pause
	undecided int
	// fenced says that a removal took the readiness from the label and was then refused: nothing else changed.
	fenced bool
	// told is the last event: what did not change since is no news.
	told string
}

// Run goes on until the context ends. That alone uninstalls nothing: an upgrade ends the pod too.
func (a *Agent) Run(ctx context.Context) error {
	a.retry = pause{first: a.Retry, most: maxRetry}
	var next time.Time
	for {
		node, err := a.Kube.Node(ctx, a.Node)
		switch {
		case err != nil:
			slog.Error("read the node", "error", err)
		case node.Annotations[AnnotationUninstall] != "":
			next = time.Now()
			if a.uninstall(ctx, node) {
				next = time.Now().Add(retired)
			} else if a.fenced {
				next = time.Now().Add(recheck)
			}
		case a.fenced:
			a.unfence(ctx)
		case a.lost(node) || !next.After(time.Now()):
			next = time.Now().Add(a.install(ctx, node))
		}
		if !sleep(ctx, a.Poll) {
			return nil
		}
	}
}

// lost reports whether a node that was made ready is so no more, by somebody else: its labels went with the node's object, or
// containerd's configuration was written anew.
func (a *Agent) lost(node *kube.Node) bool {
	return a.standing && (node.Labels[LabelRuntime] == "" || node.Annotations[AnnotationVersion] == "" || !a.Installer.Standing())
}

// outcome is what an installation means for the node.
type outcome struct {
	labels, annotations   map[string]any
	kind, reason, message string
	// decided is false for one that shall be tried again before anybody relies on it.
	decided bool
	next    time.Duration
}

// install installs, records the outcome on the node and returns when to look again. A removal that begins meanwhile must know
// of this node, so the node says so first.
func (a *Agent) install(ctx context.Context, node *kube.Node) time.Duration {
	if node.Annotations[AnnotationVersion] == "" && !a.patch(ctx, nil, map[string]any{AnnotationVersion: underWay}) {
		return 0
	}
	if a.before == nil {
		a.before = node
	}
	res, err := a.Installer.Install(ctx)
	if ctx.Err() != nil {
		return 0
	}
	o := a.judge(node, res, err)
	a.standing = o.labels[LabelRuntime] == labelReady
	if !a.patch(ctx, o.labels, o.annotations) {
		return 0
	}
	a.tell(ctx, res, o.kind, o.reason, o.message)
	if o.decided {
		if err := a.Settled(); err != nil {
			slog.Error("report the pod as ready", "error", err)
		}
	}
	return o.next
}

func (a *Agent) judge(node *kube.Node, res *Result, err error) outcome {
	was, version := node.Labels[LabelRuntime], node.Annotations[AnnotationVersion]
	slow := errors.Is(err, ErrUndecided)
	if a.undecided++; !slow {
		a.undecided = 0
	}
	if slow && was == labelReady && a.undecided < maxUndecided {
		return outcome{kind: "Warning", reason: "KrunCheckTimedOut", next: a.retry.next(),
			message: "this node stays ready for krun pods and is tried again soon: " + err.Error()}
	}
	// A rollout waits at a node that was ready before it, and is so no more: what it brings may be the reason.
	stood := a.before.Labels[LabelRuntime] == labelReady
	o := outcome{labels: map[string]any{}, annotations: map[string]any{}, kind: "Warning", decided: !stood}
	why := ""
	switch {
	case slow:
		o.reason, why = "KrunCheckTimedOut", err.Error()
		o.message = "this node is tried again soon: " + why
		o.decided = o.decided && a.undecided >= maxUndecided
	case err != nil:
		o.reason, why = "KrunInstallFailed", err.Error()
		o.message = "krun could not be installed: " + why
	case !res.Ready:
		o.reason, why = "KrunNotPossible", res.Reason
		o.message = "this node cannot run krun pods: " + why
	default:
		o.kind, o.reason, o.message, o.decided = "Normal", "KrunReady", "this node runs krun pods, version "+res.Version, true
	}
	if why == "" {
		o.labels[LabelRuntime], o.annotations[AnnotationReason] = labelReady, nil
		a.retry.reset()
		o.next = recheck
	} else {
		o.annotations[AnnotationReason] = why
		if was != "" {
			o.labels[LabelRuntime] = labelNotReady
		}
		o.next = a.retry.next()
	}
	switch {
	case res != nil && res.Version != "":
		o.annotations[AnnotationVersion] = res.Version
	case version == "" || version == underWay:
		o.annotations[AnnotationVersion] = nil // the reason tells a removal of this node
	}
	return o
}

// uninstall first makes the node one to which no new pod comes.
func (a *Agent) uninstall(ctx context.Context, node *kube.Node) bool {
	if node.Labels[LabelRuntime] == labelReady {
		if !a.patch(ctx, map[string]any{LabelRuntime: labelNotReady}, nil) {
			return false
		}
		a.fenced = true
	}
	res, err := a.Installer.Uninstall(ctx, node.Annotations[AnnotationUninstall] == requestForce)
	if err != nil {
		a.fenced = a.fenced && errors.Is(err, ErrPodsRun)
		a.tell(ctx, res, "Warning", "KrunUninstallFailed", err.Error())
		return false
	}
	a.fenced, a.standing = false, false
	gone := map[string]any{AnnotationReason: nil, AnnotationVersion: nil, AnnotationUninstall: nil}
	if !a.patch(ctx, map[string]any{LabelRuntime: nil}, gone) {
		return false
	}
	message := "krun was uninstalled from this node"
	if res.Other != "" {
		message += "; the installation under " + res.Other + " is another one, and stays"
	}
	a.tell(ctx, res, "Normal", "KrunUninstalled", message)
	return true
}

// unfence gives the node back to pods after a removal that was refused and given up.
func (a *Agent) unfence(ctx context.Context) {
	if a.patch(ctx, map[string]any{LabelRuntime: labelReady}, nil) {
		a.fenced, a.told = false, ""
	}
}

// patch changes the node, and goes on trying until ctx ends: without the API nothing else can be done either.
func (a *Agent) patch(ctx context.Context, labels, annotations map[string]any) bool {
	p := pause{first: min(a.Poll, time.Second), most: 30 * time.Second}
	for {
		err := a.Kube.PatchNode(ctx, a.Node, labels, annotations)
		if err == nil {
			return true
		}
		slog.Error("label and annotate the node", "error", err)
		if !sleep(ctx, p.next()) {
			return false
		}
	}
}

// tell logs and records an event, unless it was the last one too.
func (a *Agent) tell(ctx context.Context, res *Result, kind, reason, message string) {
	if a.told == reason+message {
		return
	}
	slog.Info(message, "reason", reason, "result", res)
	if err := a.Kube.Event(ctx, a.Node, kind, reason, message); err != nil {
		slog.Error("record an event", "error", err)
		return
	}
	a.told = reason + message
}
