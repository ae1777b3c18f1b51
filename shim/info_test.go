package shim

import (
	"bytes"
	"context"
	"slices"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
)

func featuresWith(t *testing.T, options proto.Message) features.Features {
	t.Helper()
	var stdin []byte
	if options != nil {
		given, err := typeurl.MarshalAnyToProto(options)
		if err != nil {
			t.Fatal(err)
		}
		if stdin, err = proto.Marshal(given); err != nil {
			t.Fatal(err)
		}
	}
	info, err := NewManager().Info(context.Background(), bytes.NewReader(stdin))
	if err != nil {
		t.Fatal(err)
	}
	var f features.Features
	if err := typeurl.UnmarshalTo(info.Features, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestInfoSaysWhatContainerdAsksFor(t *testing.T) {
	// runc's options are what containerd adds itself when a pod has a user namespace.
	for _, options := range []proto.Message{nil, &runcoptions.Options{IoUid: 1}} {
		f := featuresWith(t, options)
		if !slices.Contains(f.MountOptions, "rro") || !slices.Contains(f.Linux.Namespaces, "user") ||
			!*f.Linux.MountExtensions.IDMap.Enabled {
			t.Errorf("with options %v features are %+v", options, f)
		}
	}
}

func TestInfoKnowsNoUserNamespacesWhereContainerdCannotStartThem(t *testing.T) {
	f := featuresWith(t, &runtimeoptions.Options{ConfigPath: "/etc/krunpod/config.toml"})
	if slices.Contains(f.Linux.Namespaces, "user") {
		t.Error("the runtime has options and says that it knows user namespaces")
	}
}
