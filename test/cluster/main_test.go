package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"krun.dev/krunpod/test/deadline"
	"krun.dev/krunpod/test/kube"
)

const (
	// enableEnv says that KUBECONFIG is that of a cluster to test on.
	enableEnv = "KRUNPOD_CLUSTER"
	// patience bounds what the kubelet does by itself, on an emulated node beside others; waiting is the same for kubectl.
	patience = 8 * time.Minute
	waiting  = "--timeout=8m"
	image    = "localhost/krunpod/busybox:1"
	// helper is image with the command helper: test/images.
	helper = "localhost/krunpod/helper:1"
)

func TestMain(m *testing.M) {
	if os.Getenv(enableEnv) == "" {
		println("tests of a cluster run on one: hack/cluster-test")
		os.Exit(0)
	}
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	if err := connect(); err != nil {
		fmt.Println("the cluster to test on:", err)
		os.Exit(1)
	}
	code := m.Run()
	if left := namespacesLeft(); left != "" {
		fmt.Printf("%v after the tests these namespaces are still there: %s\n", patience, left)
		code = 1
	}
	os.Exit(code)
}

// api is the cluster, nodes are the names of its nodes, and due is until when tests are begun.
var (
	api   *kube.Client
	nodes []string
	due   deadline.Deadline
)

func connect() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if due, err = deadline.FromEnv(); err != nil {
		return err
	}
	if api, err = kube.New(ctx); err != nil {
		return err
	}
	names, err := api.Value(ctx, "", "nodes", "{.items[*].metadata.name}")
	nodes = strings.Fields(names)
	for _, n := range nodes {
		turns[n] = make(chan struct{}, startsAtOnce)
	}
	return err
}

// namespacesLeft waits for the namespaces of the tests to go, which no test does, and names those that do not.
func namespacesLeft() (left string) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Second) {
		all, err := api.Value(context.Background(), "", "namespaces", "{.items[*].metadata.name}")
		if err != nil {
			return err.Error()
		}
		mine := slices.DeleteFunc(strings.Fields(all), func(name string) bool { return !strings.HasPrefix(name, prefix) })
		if left = strings.Join(mine, " "); left == "" {
			return ""
		}
	}
	return left
}
