package installer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultConfig is the file that a containerd reads that was told of none.
const defaultConfig = "/etc/containerd/config.toml"

// serves checks that containerd answers where the layout says, and that what answers was started with the file that is about to
// be changed: else the node would be taken for ready, and no pod of it would start.
func (i *Installer) serves() error {
	at, err := i.Host.path(i.Layout.Socket)
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", at)
	if err != nil {
		return fmt.Errorf("containerd does not answer, and nothing was changed; if it listens elsewhere than at %s, set containerd.socket: %w", i.Layout.Socket, err)
	}
	defer conn.Close()
	config := i.configOf(conn.(*net.UnixConn))
	if config == "" || i.Layout.Template {
		return nil
	}
	reads, err := i.Host.path(config)
	if err != nil {
		return err
	}
	edits, err := i.Host.path(i.Layout.Config)
	if err != nil {
		return err
	}
	if reads != edits {
		return fmt.Errorf("the containerd that listens at %s reads %s, not %s: nothing was changed; set containerd.config", i.Layout.Socket, config, i.Layout.Config)
	}
	return nil
}

// configOf is the configuration that the containerd at the other end was started with, empty if that cannot be told.
func (i *Installer) configOf(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var peer *unix.Ucred // of the process that called listen(2): unix(7), SO_PEERCRED
	cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if errors.Join(cerr, err) != nil || peer.Pid == 0 {
		return ""
	}
	cmdline, err := os.ReadFile(filepath.Join(i.Proc, strconv.Itoa(int(peer.Pid)), "cmdline"))
	if err != nil {
		return ""
	}
	return configIn(strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00"))
}

// configIn is the configuration that a command line of containerd names.
func configIn(argv []string) string {
	if filepath.Base(argv[0]) != "containerd" {
		return ""
	}
	config := defaultConfig
	for n, arg := range argv[1:] {
		flag, value, has := strings.Cut(arg, "=")
		if flag != "-c" && strings.TrimLeft(flag, "-") != "config" || !strings.HasPrefix(flag, "-") {
			continue
		}
		if !has && n+2 < len(argv) {
			value = argv[n+2]
		}
		config = value
	}
	if !filepath.IsAbs(config) {
		return ""
	}
	return config
}
