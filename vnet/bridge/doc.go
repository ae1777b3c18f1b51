// Package bridge carries the frames between a guest and an interface of its pod, past a firewall.
//
// Enters: two interfaces of the pod's network namespace, the one that leads to the guest and CNI's, and a Firewall.
// Frames cross in both directions as they are, with what the kernel knows of their offloads: a checksum that is left to
// do and a segment of 64 KiB stay so, as they do with a redirect in the kernel. The guest keeps the addresses, hardware
// address, routes and MTU that CNI gave. Must never happen here: a frame that crosses without a verdict, or a frame of
// the guest that is read as anything but a frame.
//
// The namespace's own stack must not see the frames: who uses this drops them at the ingress of both interfaces, where
// packet sockets have had them already (__netif_receive_skb_core, net/core/dev.c). So when this process has died,
// nothing passes.
package bridge
