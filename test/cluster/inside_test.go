package cluster

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"krun.dev/krunpod/test/testpod"
)

// roleEnv makes this binary, in a container, do one of roles instead of tests: what no command of the image does.
const roleEnv = "KRUNPOD_CLUSTER_ROLE"

var roles = map[string]func(args []string) error{"watch": watch, "listen": listen, "dial": dial}

func role(name string) int {
	if err := roles[name](os.Args[1:]); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// watch prints what inotify(7) shows of directories.
func watch(dirs []string) error {
	failed := make(chan error)
	for _, dir := range dirs {
		w, err := testpod.NewWatch(dir)
		if err != nil {
			return err
		}
		go func() {
			for {
				events, err := w.Next()
				if err != nil {
					failed <- err
					return
				}
				for _, e := range events {
					fmt.Println(dir, e)
				}
			}
		}()
	}
	fmt.Println("watching")
	return <-failed
}

// listen answers each caller of UNIX sockets with what it said.
func listen(paths []string) error {
	failed := make(chan error)
	for _, path := range paths {
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}
		}()
	}
	fmt.Println("listening")
	return <-failed
}

// dial prints what a UNIX socket answers to "hello".
func dial(paths []string) error {
	conn, err := net.Dial("unix", paths[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "hello"); err != nil {
		return err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	fmt.Println(strings.TrimSpace(string(answer)))
	return err
}

// install puts this binary at a path of a container.
func (s *side) install(pod, container, path string) {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		s.Fatal(err)
	}
	if _, errs, err := s.try(string(data), "exec", "-i", pod, "-c", container, "--", "sh", "-c", "cat >"+path+" && chmod 755 "+path); err != nil {
		s.Fatalf("install %s: %v: %s", path, err, errs)
	}
}
