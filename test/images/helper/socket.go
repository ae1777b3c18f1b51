package main

import (
	"fmt"
	"io"
	"net"
	"strings"
)

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
