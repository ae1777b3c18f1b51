package cri

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"krun.dev/krunpod/agent/api"
)

// readResolvConf reads a resolver configuration of the host, resolv.conf(5); a missing file is an empty one.
func readResolvConf(path string) (*api.DNS, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &api.DNS{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	defer f.Close()
	d := &api.DNS{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			d.Servers = append(d.Servers, fields[1])
		case "search", "domain":
			d.Searches = fields[1:]
		case "options":
			d.Options = append(d.Options, fields[1:]...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read resolver configuration %s: %w", path, err)
	}
	return d, nil
}
