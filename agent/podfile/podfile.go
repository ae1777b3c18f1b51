package podfile

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"krun.dev/krunpod/agent/api"
)

// Hostname is the content of /etc/hostname.
func Hostname(name string) (string, error) {
	if err := word("hostname", name); err != nil {
		return "", err
	}
	return name + "\n", nil
}

// ResolvConf is the content of resolv.conf(5) for dns, in the order that containerd writes it. Nil and empty give an empty file.
func ResolvConf(dns *api.DNS) (string, error) {
	var b strings.Builder
	list := func(key, what string, values []string) error {
		for _, v := range values {
			if err := word(what, v); err != nil {
				return err
			}
		}
		if len(values) > 0 {
			fmt.Fprintf(&b, "%s %s\n", key, strings.Join(values, " "))
		}
		return nil
	}
	err := list("search", "DNS search domain", dns.GetSearches())
	for _, s := range dns.GetServers() {
		err = errors.Join(err, list("nameserver", "DNS server", []string{s}))
	}
	if err = errors.Join(err, list("options", "DNS option", dns.GetOptions())); err != nil {
		return "", err
	}
	return b.String(), nil
}

// Hosts is the content of /etc/hosts: localhost, then hostname at each of ips. The kubelet mounts a file of its own over it.
func Hosts(hostname string, ips []netip.Addr) (string, error) {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	if hostname != "" {
		if err := word("hostname", hostname); err != nil {
			return "", err
		}
		for _, ip := range ips {
			fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
		}
	}
	return b.String(), nil
}

// word refuses what would not be one word of one line.
func word(what, s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("%s %q: empty, or contains white space or control characters", what, s)
	}
	return nil
}
