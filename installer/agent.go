package installer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"krun.dev/krunpod/installer/kube"
)

// What stands on a node.
const (
	// LabelRuntime is "ready" on a node that runs krun pods; the RuntimeClass selects by it.
	LabelRuntime = "krun.dev/runtime"
	// AnnotationReason says why a node is not ready.
	AnnotationReason = "krun.dev/not-ready"
	// AnnotationVersion is on each node that has an installation, or may have one: it is underWay while the first is made.
	AnnotationVersion = "krun.dev/installed"
	underWay          = "installing"
	// AnnotationUninstall asks the installer on a node to uninstall; Retire sets it.
	AnnotationUninstall = "krun.dev/uninstall"
)

const (
	// retry is how long a failed installation waits for the next try.
	retry = 5 * time.Minute
	// retired is how long an uninstalled node stays so while its installer goes on: its pod is deleted within that time, or
	// the removal was given up elsewhere.
	retired = 15 * time.Minute
)

// Agent keeps one node installed, until it is asked to uninstall.
type Agent struct {
	Installer *Installer
	Kube      *kube.Client
	Node      string
	// Poll is how often the node's annotations are read.
	Poll time.Duration
	// Settled is called when the first decision about the node has been recorded.
	Settled func() error

	// failed is why the last uninstallation failed: one event says it, not one every Poll.
	failed string
}

// Run goes on until the context ends. That alone uninstalls nothing: an upgrade ends the pod too.
func (a *Agent) Run(ctx context.Context) error {
	var next time.Time
	for {
		node, err := a.Kube.Node(ctx, a.Node)
		switch {
		case err != nil:
			slog.Error("read the node", "error", err)
		case node.Annotations[AnnotationUninstall] != "":
			if a.uninstall(ctx, node.Annotations[AnnotationUninstall] == "force") {
				next = time.Now().Add(retired)
			}
		case !next.After(time.Now()):
			next = time.Now().Add(retry)
			if a.install(ctx, node.Annotations[AnnotationVersion]) {
				next = time.Now().Add(24 * time.Hour)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.Poll):
		}
	}
}

// install installs, and records the outcome on the node, where version was installed before; it reports whether nothing
// is left to try. A removal that begins meanwhile must know of this node, so the node says so first.
func (a *Agent) install(ctx context.Context, version string) bool {
	if version == "" {
		if err := a.Kube.PatchNode(ctx, a.Node, nil, map[string]any{AnnotationVersion: underWay}); err != nil {
			slog.Error("annotate the node", "error", err)
			return false
		}
	}
	res, err := a.Installer.Install(ctx)
	if ctx.Err() != nil {
		return false
	}
	labels := map[string]any{LabelRuntime: nil}
	annotations := map[string]any{AnnotationReason: nil}
	var kind, reason, message string
	switch {
	case err != nil:
		kind, reason, message = "Warning", "KrunInstallFailed", "krun could not be installed: "+err.Error()
		annotations[AnnotationReason] = err.Error()
	case !res.Ready:
		kind, reason, message = "Warning", "KrunNotPossible", "this node cannot run krun pods: "+res.Reason
		annotations[AnnotationReason] = res.Reason
	default:
		kind, reason, message = "Normal", "KrunReady", "this node runs krun pods, version "+res.Version
		labels[LabelRuntime] = "ready"
	}
	switch {
	case res != nil && res.Version != "":
		annotations[AnnotationVersion] = res.Version
	case version == "" || version == underWay:
		annotations[AnnotationVersion] = nil // the reason tells a removal of this node
	}
	slog.Info(message, "result", res)
	if err := a.Kube.PatchNode(ctx, a.Node, labels, annotations); err != nil {
		slog.Error("label the node", "error", err)
		return false
	}
	a.event(ctx, kind, reason, message)
	if err := a.Settled(); err != nil {
		slog.Error("report the pod as ready", "error", err)
	}
	return err == nil
}

// uninstall takes the label away first, so that no new pod comes.
func (a *Agent) uninstall(ctx context.Context, force bool) bool {
	if err := a.Kube.PatchNode(ctx, a.Node, map[string]any{LabelRuntime: nil}, nil); err != nil {
		slog.Error("take the label from the node", "error", err)
		return false
	}
	res, err := a.Installer.Uninstall(ctx, force)
	if err != nil {
		if a.failed != err.Error() {
			slog.Error("uninstall", "error", err, "result", res)
			a.event(ctx, "Warning", "KrunUninstallFailed", err.Error())
		}
		a.failed = err.Error()
		return false
	}
	a.failed = ""
	slog.Info("uninstalled", "result", res)
	gone := map[string]any{AnnotationReason: nil, AnnotationVersion: nil, AnnotationUninstall: nil}
	if err := a.Kube.PatchNode(ctx, a.Node, nil, gone); err != nil {
		slog.Error("take the annotations from the node", "error", err)
		return false
	}
	a.event(ctx, "Normal", "KrunUninstalled", "krun was uninstalled from this node")
	return true
}

func (a *Agent) event(ctx context.Context, kind, reason, message string) {
	if err := a.Kube.Event(ctx, a.Node, kind, reason, message); err != nil {
		slog.Error("record an event", "error", err)
	}
}

// Retire asks the installers of all nodes to uninstall, and waits until they have. Without force it refuses while pods of
// the RuntimeClass exist. When it gives up, it takes its requests back.
func Retire(ctx context.Context, client *kube.Client, runtimeClass string, force bool) error {
	pods, err := client.Pods(ctx, runtimeClass)
	if err != nil {
		return err
	}
	if len(pods) > 0 && !force {
		return fmt.Errorf("%d pods of RuntimeClass %s exist: delete them first, or set uninstall.force and lose them: %s",
			len(pods), runtimeClass, strings.Join(pods, ", "))
	}
	request := "requested"
	if force {
		request = "force"
	}
	asked := map[string]bool{}
	err = retire(ctx, client, request, asked)
	// Also after the deadline: a node that has not uninstalled by then shall not do so later.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	errs := []error{err}
	if err != nil {
		for name := range asked {
			errs = append(errs, client.PatchNode(end, name, nil, map[string]any{AnnotationUninstall: nil}))
		}
	}
	return errors.Join(errs...)
}

func retire(ctx context.Context, client *kube.Client, request string, asked map[string]bool) error {
	for {
		nodes, err := client.Nodes(ctx)
		if err != nil {
			return err
		}
		var left []string
		for _, n := range nodes {
			if n.Annotations[AnnotationVersion] == "" && n.Annotations[AnnotationReason] == "" {
				continue
			}
			left = append(left, n.Name)
			if n.Annotations[AnnotationUninstall] == request {
				asked[n.Name] = true
				continue
			}
			if err := client.PatchNode(ctx, n.Name, nil, map[string]any{AnnotationUninstall: request}); err != nil {
				return err
			}
			asked[n.Name] = true
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("krun is still installed on %s: see the events of these nodes", strings.Join(left, ", "))
		case <-time.After(2 * time.Second):
		}
	}
}
