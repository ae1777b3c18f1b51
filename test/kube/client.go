package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// ErrNotFound is the error of an object that is not there.
var ErrNotFound = errors.New("not found")

// mostBytes bounds an answer. The largest one that a test asks for is a node's statistics.
const mostBytes = 64 << 20

// Client asks one API server as the user of a kubeconfig.
type Client struct {
	server string
	http   *http.Client
}

// kubeconfig is the part of k8s.io/client-go/tools/clientcmd/api/v1.Config that is needed, of one cluster and one user.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server    string
			Authority []byte `json:"certificate-authority-data"`
		}
	}
	Users []struct {
		User struct {
			Certificate []byte `json:"client-certificate-data"`
			Key         []byte `json:"client-key-data"`
		}
	}
}

// New reads the kubeconfig that kubectl, which must be on the PATH, would take; its user must have a certificate.
func New(ctx context.Context) (*Client, error) {
	text, err := exec.CommandContext(ctx, "kubectl", "config", "view", "--minify", "--raw", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("kubectl config view: %w", err)
	}
	var config kubeconfig
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("kubectl config view: %w", err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("the kubeconfig has %d clusters and %d users in its context, want one of each", len(config.Clusters), len(config.Users))
	}
	cluster, user := config.Clusters[0].Cluster, config.Users[0].User
	pair, err := tls.X509KeyPair(user.Certificate, user.Key)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the kubeconfig's user: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(cluster.Authority) {
		return nil, errors.New("the kubeconfig has no certificate of the cluster's authority")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.TLSClientConfig = &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{pair}}
	return &Client{cluster.Server, &http.Client{Transport: transport, Timeout: time.Minute}}, nil
}

// kinds are the API's paths of what tests look at: docs of Kubernetes, API reference. Those in every have no namespace.
var (
	kinds = map[string]string{
		"pod": "/api/v1/%s/pods", "service": "/api/v1/%s/services", "event": "/api/v1/%s/events",
		"serviceaccount": "/api/v1/%s/serviceaccounts", "resourcequota": "/api/v1/%s/resourcequotas",
		"persistentvolumeclaim": "/api/v1/%s/persistentvolumeclaims",
		"deployment":            "/apis/apps/v1/%s/deployments", "daemonset": "/apis/apps/v1/%s/daemonsets",
		"job": "/apis/batch/v1/%s/jobs", "cronjob": "/apis/batch/v1/%s/cronjobs",
	}
	every = map[string]string{
		"node": "/api/v1/nodes", "namespace": "/api/v1/namespaces", "csinode": "/apis/storage.k8s.io/v1/csinodes",
		"persistentvolume": "/api/v1/persistentvolumes", "runtimeclass": "/apis/node.k8s.io/v1/runtimeclasses",
	}
)

// path is where "pod/web", or "pods" for all of them, is in the API.
func path(namespace, what string) (string, error) {
	kind, name, one := strings.Cut(what, "/")
	if !one {
		kind = strings.TrimSuffix(kind, "s")
	}
	at, ok := every[kind]
	if !ok {
		if at, ok = kinds[kind]; !ok {
			return "", fmt.Errorf("%s: no kind that test/kube knows; add it there", what)
		}
		at = fmt.Sprintf(at, "namespaces/"+url.PathEscape(namespace))
	}
	if one {
		at += "/" + url.PathEscape(name)
	}
	return at, nil
}

// Value is what kubectl get WHAT -o jsonpath=TEMPLATE prints; a field or an element that is not there is empty.
func (c *Client) Value(ctx context.Context, namespace, what, template string) (string, error) {
	at, err := path(namespace, what)
	if err != nil {
		return "", err
	}
	object, err := c.Raw(ctx, at)
	if err != nil {
		return "", err
	}
	return evaluate(object, template)
}

// Log is what a container has said so far; a pod with one needs no name of it.
func (c *Client) Log(ctx context.Context, namespace, pod, container string) (string, error) {
	at, err := path(namespace, "pod/"+pod)
	if err != nil {
		return "", err
	}
	log, err := c.Raw(ctx, at+"/log?"+url.Values{"container": {container}}.Encode())
	return string(log), err
}

// Messages are those of the events of an object.
func (c *Client) Messages(ctx context.Context, namespace, name string) ([]string, error) {
	at, err := path(namespace, "events")
	if err != nil {
		return nil, err
	}
	list, err := c.Raw(ctx, at+"?"+url.Values{"fieldSelector": {"involvedObject.name=" + name}}.Encode())
	if err != nil {
		return nil, err
	}
	var events struct{ Items []struct{ Message string } }
	if err := json.Unmarshal(list, &events); err != nil {
		return nil, fmt.Errorf("the events of %s: %w", name, err)
	}
	var messages []string
	for _, e := range events.Items {
		messages = append(messages, e.Message)
	}
	return messages, nil
}

// Raw is the answer at a path of the API, as kubectl get --raw has it.
func (c *Client) Raw(ctx context.Context, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+at, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostBytes))
	switch {
	case err != nil:
		return nil, fmt.Errorf("GET %s: %w", at, err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("GET %s: %w", at, ErrNotFound)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("GET %s: %s: %s", at, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}
