package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accountDir is where the kubelet puts a pod's service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxAnswer bounds what is read of an answer: a page of pods at most.
const maxAnswer = 64 << 20

// Client talks to one API server as one service account.
type Client struct {
	Base  string
	HTTP  *http.Client
	Token func() (string, error)
	// Namespace is the service account's.
	Namespace string
}

// InCluster makes a client of the pod's service account.
func InCluster() (*Client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST is not set: this command is for a pod")
	}
	ca, err := os.ReadFile(filepath.Join(accountDir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("the pod's service account: %w", err)
	}
	namespace, err := os.ReadFile(filepath.Join(accountDir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("the pod's service account: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the pod's service account: ca.crt holds no certificate")
	}
	return &Client{
		Namespace: string(namespace),
		Base:      "https://" + net.JoinHostPort(host, port),
		HTTP:      &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}},
		// The kubelet renews it.
		Token: func() (string, error) {
			t, err := os.ReadFile(filepath.Join(accountDir, "token"))
			return strings.TrimSpace(string(t)), err
		},
	}, nil
}

// Meta is the part of an object's metadata that is used here.
type Meta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// Node is the part of a node that is used here.
type Node struct {
	Meta   `json:"metadata"`
	Status struct {
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

// Ready reports whether the node's kubelet is heard.
func (n *Node) Ready() bool {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// Node returns a node.
func (c *Client) Node(ctx context.Context, name string) (*Node, error) {
	var n Node
	err := c.do(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(name), "", nil, &n)
	return &n, err
}

// Nodes returns all nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return list[Node](ctx, c, "/api/v1/nodes", "")
}

// PatchNode sets labels and annotations of a node; a nil value removes one, a nil map changes nothing.
func (c *Client) PatchNode(ctx context.Context, name string, labels, annotations map[string]any) error {
	meta := map[string]any{}
	// A null in a merge patch removes: without these conditions it would be all labels of the node, not none.
	if labels != nil {
		meta["labels"] = labels
	}
	if annotations != nil {
		meta["annotations"] = annotations
	}
	patch := map[string]any{"metadata": meta}
	return c.do(ctx, http.MethodPatch, "/api/v1/nodes/"+url.PathEscape(name), "application/merge-patch+json", patch, nil)
}

// Pod is the part of a pod that is used here.
type Pod struct {
	Meta `json:"metadata"`
	Spec struct {
		NodeName         string `json:"nodeName"`
		RuntimeClassName string `json:"runtimeClassName"`
	} `json:"spec"`
	Status struct {
		Phase             string `json:"phase"`
		ContainerStatuses []struct {
			State struct {
				Running *struct{} `json:"running"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// Ended reports whether none of its containers will run again.
func (p *Pod) Ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// Running reports whether one of its containers does.
func (p *Pod) Running() bool {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil {
			return true
		}
	}
	return false
}

// Pods returns all pods of the cluster.
func (c *Client) Pods(ctx context.Context) ([]Pod, error) {
	return list[Pod](ctx, c, "/api/v1/pods", "")
}

// OwnPods returns those of the client's namespace that have the labels of a selector.
func (c *Client) OwnPods(ctx context.Context, selector string) ([]Pod, error) {
	return list[Pod](ctx, c, "/api/v1/namespaces/"+url.PathEscape(c.Namespace)+"/pods", selector)
}

// Event records an event about a node, as kubectl describe node shows it.
func (c *Client) Event(ctx context.Context, node, kind, reason, message string) error {
	const maxMessage = 1024 // the API's limit
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	now := time.Now().UTC().Format(time.RFC3339)
	return c.do(ctx, http.MethodPost, "/api/v1/namespaces/default/events", "application/json", map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"generateName": "krun-installer-", "namespace": "default"},
		// The kubelet too uses the name as uid: kubectl looks for both.
		"involvedObject": map[string]any{"kind": "Node", "name": node, "uid": node},
		"type":           kind, "reason": reason, "message": message, "count": 1,
		"firstTimestamp": now, "lastTimestamp": now,
		"source": map[string]any{"component": "krun-installer", "host": node},
	}, nil)
}

// list reads a list, in pages.
func list[T any](ctx context.Context, c *Client, path, selector string) ([]T, error) {
	var all []T
	query := url.Values{"limit": {"500"}}
	if selector != "" {
		query.Set("labelSelector", selector)
	}
	for {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := c.do(ctx, http.MethodGet, path+"?"+query.Encode(), "", nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Metadata.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body, answer any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	token, err := c.Token()
	if err != nil {
		return fmt.Errorf("the pod's service account: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode >= 300 {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(got, &status)
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, status.Message)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(got, answer)
}
