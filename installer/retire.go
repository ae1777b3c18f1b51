package installer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"krun.dev/krunpod/installer/kube"
)

const (
	// retirePoll is how often a removal looks at the nodes.
	retirePoll = 2 * time.Second
	// silence is how many looks in a row a forced one gives nodes that cannot answer: an installer may be about to start.
	silence = 5
)

// Removal takes Krunpod off all nodes of a cluster, by asking the installers there.
type Removal struct {
	Kube *kube.Client
	// RuntimeClass is the one whose pods must be gone first.
	RuntimeClass string
	// Installers selects the installers' pods in the client's namespace.
	Installers string
	// Force goes on while such pods exist, and without the nodes that cannot answer.
	Force bool

	asked map[string]bool
}

// left is a node that still has an installation, and why it cannot answer, if it cannot.
type left struct{ node, silent string }

// name lists nodes for a person.
func name(nodes []left) string {
	var all []string
	for _, l := range nodes {
		if l.silent != "" {
			l.node += " (" + l.silent + ")"
		}
		all = append(all, l.node)
	}
	return strings.Join(all, ", ")
}

// Run asks and waits until no node is left that can answer. When it gives up, it takes its requests back.
func (r *Removal) Run(ctx context.Context) error {
	if err := r.podsGone(ctx); err != nil && !r.Force {
		return err
	}
	r.asked = map[string]bool{}
	rest, err := r.ask(ctx)
	// Also after the deadline: a node that has not uninstalled by then shall not do so later.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	errs := []error{err}
	for name := range r.asked {
		if err != nil || slices.ContainsFunc(rest, func(l left) bool { return l.node == name }) {
			errs = append(errs, r.Kube.PatchNode(end, name, nil, map[string]any{AnnotationUninstall: nil}))
		}
	}
	if err == nil {
		errs = append(errs, r.giveUp(end, rest))
	}
	return errors.Join(errs...)
}

func (r *Removal) podsGone(ctx context.Context) error {
	pods, err := r.Kube.Pods(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, p := range pods {
		if p.Spec.RuntimeClassName == r.RuntimeClass && !p.Ended() {
			found = append(found, p.Namespace+"/"+p.Name)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%d pods of RuntimeClass %s exist: delete them first, or force the removal (docs/install.md) and lose them: %s",
		len(found), r.RuntimeClass, strings.Join(found, ", "))
}

// ask returns the nodes that Force does without.
func (r *Removal) ask(ctx context.Context) ([]left, error) {
	request := "requested"
	if r.Force {
		request = requestForce
	}
	for quiet := 0; ; {
		rest, err := r.left(ctx, request)
		if err != nil {
			return nil, err
		}
		if quiet++; slices.ContainsFunc(rest, func(l left) bool { return l.silent == "" }) {
			quiet = 0
		}
		if len(rest) == 0 || r.Force && quiet >= silence {
			return rest, nil
		}
		select {
		case <-ctx.Done():
			why := "see the events of these nodes"
			if slices.ContainsFunc(rest, func(l left) bool { return l.silent != "" }) {
				why += "; a node that does not come back can be deleted, or left as it is by a forced removal (docs/install.md)"
			}
			return nil, fmt.Errorf("krun is still installed on %s: %s", name(rest), why)
		case <-time.After(retirePoll):
		}
	}
}

// left returns the nodes with an installation, each of which has been asked.
func (r *Removal) left(ctx context.Context, request string) ([]left, error) {
	nodes, err := r.Kube.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := r.Kube.OwnPods(ctx, r.Installers)
	if err != nil {
		return nil, err
	}
	installers := map[string]bool{}
	for _, p := range pods {
		installers[p.Spec.NodeName] = installers[p.Spec.NodeName] || p.Running()
	}
	var rest []left
	for _, n := range nodes {
		if n.Annotations[AnnotationVersion] == "" && n.Annotations[AnnotationReason] == "" {
			continue
		}
		if n.Annotations[AnnotationUninstall] != request {
			if err := r.Kube.PatchNode(ctx, n.Name, nil, map[string]any{AnnotationUninstall: request}); err != nil {
				return nil, err
			}
		}
		r.asked[n.Name] = true
		l := left{node: n.Name}
		switch {
		case !n.Ready():
			l.silent = "the node is not ready"
		case !installers[n.Name]:
			l.silent = "no installer runs there"
		}
		rest = append(rest, l)
	}
	return rest, nil
}

// giveUp leaves nodes that cannot answer as they are, but for the label: no pod comes there any more.
func (r *Removal) giveUp(ctx context.Context, rest []left) error {
	var errs []error
	for _, l := range rest {
		slog.Warn("krun stays installed: run krun-installer uninstall there (docs/install.md)", "node", l.node, "reason", l.silent)
		errs = append(errs, r.Kube.PatchNode(ctx, l.node, map[string]any{LabelRuntime: nil}, nil))
	}
	return errors.Join(errs...)
}
