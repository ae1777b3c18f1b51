package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"krun.dev/krunpod/test/testpod"
)

// This binary is the client in the pod too, with the environment variable roleEnv.
const (
	roleEnv      = "KRUNPOD_BENCH_ROLE"
	benchInPod   = "/bench"
	exchangeTime = 5 * time.Second

	// roleRequests sends one byte and waits for one, on a connection; roleConnects does so once on each of many.
	roleRequests = "requests"
	roleConnects = "connects"
)

// exchange measures how often a second the client in the pod gets through.
func exchange(ctx context.Context, k *testpod.Container, role string) (float64, error) {
	gw, err := gateway(ctx, k, false)
	if err != nil {
		return 0, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(gw, "0"))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go echo(l)
	out, err := output(ctx, k, fmt.Sprintf("%s=%s %s %s", roleEnv, role, benchInPod, l.Addr()))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(out, 64)
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// client is the pod's side of exchange: it prints the rate.
func client(role, addr string) error {
	once := func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return errors.Join(request(conn), conn.Close())
	}
	if role == roleRequests {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		once = func() error { return request(conn) }
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < exchangeTime; n++ {
		if err := once(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(os.Stdout, "%.1f\n", float64(n)/time.Since(began).Seconds())
	return err
}

func request(conn net.Conn) error {
	b := []byte{'x'}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, b)
	return err
}
