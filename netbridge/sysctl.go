package netbridge

import (
	"os"
	"path/filepath"
	"strings"
)

// The kernel parameters that this package sets, Documentation/networking/ip-sysctl.rst.
func disableIPv6(iface string) string { return ipv6Conf(iface, "disable_ipv6") }

func routerSolicitations(iface string) string { return ipv6Conf(iface, "router_solicitations") }

func ipv6Conf(iface, key string) string {
	return filepath.Join("/proc/sys/net/ipv6/conf", iface, key)
}

// setSysctl sets a kernel parameter of the calling thread's network namespace and returns the value it had. Both are
// empty on a kernel without that parameter (ipv6.disable=1), which then needs no quieting either.
func setSysctl(path, value string) (old string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var buf [64]byte
	n, err := f.Read(buf[:])
	if err != nil {
		return "", err
	}
	if old = strings.TrimSpace(string(buf[:n])); old == value {
		return "", nil
	}
	_, err = f.WriteAt([]byte(value), 0)
	return old, err
}
