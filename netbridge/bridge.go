package netbridge

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"krun.dev/krunpod/agent/api"
)

// Bridge is what Join made, and all that Leave needs to undo it. It may be kept as JSON.
type Bridge struct {
	// Interfaces are in the order of the guest's NICs: eth0 first, then by interface index.
	Interfaces []Port

	// inode identifies the namespace (ns_get_path, fs/nsfs.c), so that Leave spares one that took over its path.
	inode uint64
}

// Port is one interface of the pod and the tap that carries its frames.
type Port struct {
	// Tap is the tap's name in the namespace of the pod.
	Tap string
	// Interface is what the guest takes over.
	Interface *api.Interface

	host attachment
}

// attachment is the host's side of a Port.
type attachment struct {
	// Tap and Link are the interface indexes of the tap and of CNI's interface.
	Tap  int `json:"tap"`
	Link int `json:"link"`
	// OwnQdisc says that Join made the clsact qdisc of Link, rather than found one.
	OwnQdisc bool `json:"ownQdisc"`
	// Name is the name of Link.
	Name string `json:"name"`
	// Solicitations is what net.ipv6.conf.NAME.router_solicitations was; empty if Join did not change it.
	Solicitations string `json:"routerSolicitations,omitempty"`
}

type bridgeJSON struct {
	Interfaces []Port `json:"interfaces"`
	Inode      uint64 `json:"netnsInode"`
}

type portJSON struct {
	Tap       string          `json:"tap"`
	Interface json.RawMessage `json:"interface"`
	Host      attachment      `json:"host"`
}

// MarshalJSON implements json.Marshaler.
func (b Bridge) MarshalJSON() ([]byte, error) {
	return json.Marshal(bridgeJSON{Interfaces: b.Interfaces, Inode: b.inode})
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bridge) UnmarshalJSON(data []byte) error {
	var j bridgeJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*b = Bridge{Interfaces: j.Interfaces, inode: j.Inode}
	return nil
}

// MarshalJSON implements json.Marshaler; the interface is written in protobuf's JSON mapping.
func (p Port) MarshalJSON() ([]byte, error) {
	iface, err := protojson.Marshal(p.Interface)
	if err != nil {
		return nil, fmt.Errorf("interface of tap %s: %w", p.Tap, err)
	}
	return json.Marshal(portJSON{Tap: p.Tap, Interface: iface, Host: p.host})
}

// UnmarshalJSON implements json.Unmarshaler. Unknown fields of the interface are passed over, so that a shim of an
// older version can still undo what a newer one made.
func (p *Port) UnmarshalJSON(data []byte) error {
	var j portJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	iface := new(api.Interface)
	if len(j.Interface) > 0 {
		opts := protojson.UnmarshalOptions{DiscardUnknown: true}
		if err := opts.Unmarshal(j.Interface, iface); err != nil {
			return fmt.Errorf("interface of tap %s: %w", j.Tap, err)
		}
	}
	*p = Port{Tap: j.Tap, Interface: iface, host: j.Host}
	return nil
}
