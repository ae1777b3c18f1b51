package sandbox

import (
	"context"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"krun.dev/krunpod/netbridge"
	"krun.dev/krunpod/test/netlab"
)

func TestRemoveFindsTapsThatNobodyNoted(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("taps need /dev/net/tun: ", err)
	}
	node, pod := netlab.New(t), netlab.New(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "veth0"
	netlab.Must(t, node.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(pod.FD)}))
	netlab.Must(t, pod.LinkSetUp(pod.Link("eth0")))
	d := dir(t.TempDir() + "/sandbox")
	netlab.Must(t, os.Mkdir(string(d), 0o700))
	// The shim is killed here, before it has written down what Join made.
	st := State{ID: "sandbox", NetNS: pod.Path}
	netlab.Must(t, st.save(d))
	if _, err := netbridge.Join(context.Background(), pod.Path, nil); err != nil {
		t.Fatal(err)
	}
	netlab.Must(t, Remove(context.Background(), string(d)))
	if tap, err := pod.LinkByName("krun0"); err == nil {
		t.Errorf("%s is left", tap.Attrs().Name)
	}
	qdiscs, err := pod.QdiscList(pod.Link("eth0"))
	netlab.Must(t, err)
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			t.Error("eth0 is still redirected")
		}
	}
	if _, err := os.Stat(string(d)); !os.IsNotExist(err) {
		t.Errorf("the sandbox's directory: %v", err)
	}
}
