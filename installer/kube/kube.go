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
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the pod's service account: ca.crt holds no certificate")
	}
	return &Client{
		Base: "https://" + net.JoinHostPort(host, port),
		HTTP: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}},
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

// Node returns a node's labels and annotations.
func (c *Client) Node(ctx context.Context, name string) (*Meta, error) {
	var n struct {
		Metadata Meta `json:"metadata"`
	}
	err := c.do(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(name), "", nil, &n)
	return &n.Metadata, err
}

// Nodes returns all nodes.
func (c *Client) Nodes(ctx context.Context) ([]Meta, error) {
	var all []Meta
	err := c.pages(ctx, "/api/v1/nodes", func(data json.RawMessage) error {
		var items []struct {
			Metadata Meta `json:"metadata"`
		}
		err := json.Unmarshal(data, &items)
		for _, n := range items {
			all = append(all, n.Metadata)
		}
		return err
	})
	return all, err
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

// Pods returns namespace/name of the pods of a RuntimeClass that have not ended.
func (c *Client) Pods(ctx context.Context, runtimeClass string) ([]string, error) {
	var found []string
	err := c.pages(ctx, "/api/v1/pods", func(data json.RawMessage) error {
		var items []struct {
			Metadata Meta `json:"metadata"`
			Spec     struct {
				RuntimeClassName string `json:"runtimeClassName"`
			} `json:"spec"`
			Status struct {
				Phase string `json:"phase"`
			} `json:"status"`
		}
		err := json.Unmarshal(data, &items)
		for _, p := range items {
			if p.Spec.RuntimeClassName == runtimeClass && p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed" {
				found = append(found, p.Metadata.Namespace+"/"+p.Metadata.Name)
			}
		}
		return err
	})
	return found, err
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

// pages reads a list in pieces.
func (c *Client) pages(ctx context.Context, path string, each func(items json.RawMessage) error) error {
	next := ""
	for {
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items json.RawMessage `json:"items"`
		}
		if err := c.do(ctx, http.MethodGet, path+"?limit=500&continue="+url.QueryEscape(next), "", nil, &list); err != nil {
			return err
		}
		if err := each(list.Items); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if next = list.Metadata.Continue; next == "" {
			return nil
		}
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
