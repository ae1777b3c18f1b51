package bridge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// lengthSize is that of the number before a frame in a stream: libkrun's and QEMU's, big-endian (krun-devices, unixstream.rs).
const lengthSize = 4

// Stream is a port at the other end of a connection, on which each frame comes after its length: a NIC of libkrun's
// krun_add_net_unixstream. Offloads must be off there.
func Stream(name string, conn net.Conn) *Port {
	return &Port{name: name, carrier: &stream{Conn: conn, reader: bufio.NewReaderSize(conn, maxFrame)}}
}

type stream struct {
	net.Conn
	reader *bufio.Reader
	length [lengthSize]byte // of what is received; a local one would be an allocation for each frame
	mu     sync.Mutex       // holds the parts of a frame together
}

// receive believes no length: what is not one of a frame ends the stream, since nothing tells where the next one begins.
func (s *stream) receive(data []byte) (int, error) {
	if _, err := io.ReadFull(s.reader, s.length[:]); err != nil {
		return 0, ended(err)
	}
	n := binary.BigEndian.Uint32(s.length[:])
	if n == 0 || n > uint32(len(data)-headerSize) {
		return 0, fmt.Errorf("a frame of %d bytes", n)
	}
	if _, err := io.ReadFull(s.reader, data[headerSize:headerSize+int(n)]); err != nil {
		return 0, ended(err)
	}
	return headerSize + int(n), nil
}

// ended is io.EOF also for an end within a frame: a VM that dies has no time for more.
func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// send waits for room: the guest takes frames as fast as it likes, and its network waits for it, no other.
func (s *stream) send(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	binary.BigEndian.PutUint32(data[headerSize-lengthSize:], uint32(len(data)-headerSize))
	_, err := s.Write(data[headerSize-lengthSize:])
	return err
}

// Messages is a port at the other end of what reads and writes a frame at a time, such as a nat.Gateway.
func Messages(name string, conn io.ReadWriteCloser) *Port {
	return &Port{name: name, carrier: &messages{conn}}
}

type messages struct{ io.ReadWriteCloser }

func (m *messages) receive(data []byte) (int, error) {
	n, err := m.Read(data[headerSize:])
	return headerSize + n, err
}

func (m *messages) send(data []byte) error {
	_, err := m.Write(data[headerSize:])
	return err
}
