package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair is a connection over loopback.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{c, d} {
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// joined is a client and a server whose connections are joined to the two ends of a stream.
func joined(t *testing.T) (client, server *net.TCPConn, ended chan error) {
	t.Helper()
	host, guest := pair(t)
	client, near := tcpPair(t)
	server, far := tcpPair(t)
	ended = make(chan error, 2)
	go func() { ended <- Join(near, host) }()
	go func() { ended <- Join(far, guest) }()
	return client, server, ended
}

func TestJoinCarriesBothDirectionsAndTheEndOfEach(t *testing.T) {
	client, server, ended := joined(t)
	question, answer := bytes.Repeat([]byte("question"), 1<<16), bytes.Repeat([]byte("answer"), 1<<16)
	go func() {
		_, _ = client.Write(question)
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, question) {
		t.Errorf("the server read %d bytes, %v", len(got), err)
	}
	go func() {
		_, _ = server.Write(answer) // after the end of the other direction
		_ = server.Close()
	}()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("the client read %d bytes, %v", len(got), err)
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestJoinPassesAResetOn(t *testing.T) {
	client, server, ended := joined(t)
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	Reset(server)
	if _, err := io.ReadAll(client); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a join that was reset ended well")
		}
	}
}
