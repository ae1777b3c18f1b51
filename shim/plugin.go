package shim

import (
	"os"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	shimlib "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"krun.dev/krunpod/config"
)

// Register makes the services known to containerd's shim framework, which builds them when the shim serves.
func Register() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "krun",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   initService,
	})
}

func initService(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	namespace, err := namespaces.NamespaceRequired(ic.Context)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(os.Getenv(configEnv))
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if ns, err := strconv.ParseInt(os.Getenv(startEnv), 10, 64); err == nil {
		started = time.Unix(0, ns)
	}
	return newService(ic.Context, namespace, cfg, publisher.(shimlib.Publisher), sd.(shutdown.Service), started), nil
}
