package testpod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/websocket"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// streamProtocol is spoken by CRI's streaming server: a message's first byte is the number of its channel
// (k8s.io/cri-streaming, pkg/streaming/remotecommand/websocket.go).
const streamProtocol = "v4.channel.k8s.io"

const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	statusChannel
	resizeChannel
	channels
)

// Stream is an exec or an attach with a client, as kubectl exec -i and kubectl attach make them.
type Stream struct {
	tcp  net.Conn
	ws   *websocket.Conn
	done chan struct{}

	mu   sync.Mutex
	said [channels]bytes.Buffer
	err  error
}

// ExecStream runs a command whose standard input is the stream's; with a terminal standard error is on it too.
func (k *Container) ExecStream(ctx context.Context, tty bool, args ...string) (*Stream, error) {
	r, err := k.pod.c.Runtime.Exec(ctx, &runtime.ExecRequest{ContainerId: k.ID, Cmd: args, Tty: tty, Stdin: true, Stdout: true, Stderr: !tty})
	if err != nil {
		return nil, err
	}
	return dialStream(ctx, r.Url)
}

// AttachStream joins the container's own streams. Tty is what the container's configuration says.
func (k *Container) AttachStream(ctx context.Context, tty bool) (*Stream, error) {
	r, err := k.pod.c.Runtime.Attach(ctx, &runtime.AttachRequest{ContainerId: k.ID, Tty: tty, Stdin: true, Stdout: true, Stderr: !tty})
	if err != nil {
		return nil, err
	}
	return dialStream(ctx, r.Url)
}

func dialStream(ctx context.Context, url string) (*Stream, error) {
	config, err := websocket.NewConfig(url, url)
	if err != nil {
		return nil, fmt.Errorf("streaming server at %q: %w", url, err)
	}
	config.Protocol = []string{streamProtocol}
	s := &Stream{done: make(chan struct{})}
	if s.tcp, err = new(net.Dialer).DialContext(ctx, "tcp", config.Location.Host); err != nil {
		return nil, fmt.Errorf("connect to the streaming server: %w", err)
	}
	if s.ws, err = websocket.NewClient(config, s.tcp); err != nil {
		s.tcp.Close()
		return nil, fmt.Errorf("open a stream at %q: %w", url, err)
	}
	s.ws.PayloadType = websocket.BinaryFrame
	go s.read()
	return s, nil
}

// read gathers what comes until the server or Vanish ends it.
func (s *Stream) read() {
	defer close(s.done)
	for {
		var message []byte
		err := websocket.Message.Receive(s.ws, &message)
		s.mu.Lock()
		if len(message) > 0 && message[0] < channels {
			s.said[message[0]].Write(message[1:])
		}
		if err != nil && !errors.Is(err, io.EOF) {
			s.err = err
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *Stream) send(channel byte, data []byte) error {
	return websocket.Message.Send(s.ws, append([]byte{channel}, data...))
}

// Write sends to standard input.
func (s *Stream) Write(data []byte) (int, error) {
	if err := s.send(stdinChannel, data); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Resize says how large the client's terminal is.
func (s *Stream) Resize(columns, rows uint16) error {
	data, err := json.Marshal(struct{ Width, Height uint16 }{columns, rows})
	if err != nil {
		return err
	}
	return s.send(resizeChannel, data)
}

// Output is what standard output and standard error brought so far.
func (s *Stream) Output() (stdout, stderr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said[stdoutChannel].String(), s.said[stderrChannel].String()
}

// WaitFor waits until standard output has text.
func (s *Stream) WaitFor(ctx context.Context, text string) error {
	err := Poll(ctx, "it does not say so", func() (bool, error) {
		out, _ := s.Output()
		if contains(out, text) {
			return true, nil
		}
		select {
		case <-s.done:
			return false, errors.New("the stream ended")
		default:
			return false, nil
		}
	})
	if err != nil {
		out, errs := s.Output()
		return fmt.Errorf("wait for %q in a stream that said %q and %q: %w", text, out, errs, err)
	}
	return nil
}

// End waits for the server to end the stream, and returns how the command ended, as a Status of Kubernetes in JSON.
func (s *Stream) End(ctx context.Context) (status string, err error) {
	defer s.Vanish()
	select {
	case <-s.done:
	case <-ctx.Done():
		return "", fmt.Errorf("the stream did not end: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said[statusChannel].String(), s.err
}

// Vanish ends the connection without a word, as a client does that is killed.
func (s *Stream) Vanish() {
	_ = s.tcp.Close() // closed already, at worst
	<-s.done
}
