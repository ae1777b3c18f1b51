package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/volume"
	"krun.dev/krunpod/sandbox/mirror"
	"krun.dev/krunpod/test/testpod"
)

// volumeAgent does with volumes what the agent does, in a directory.
type volumeAgent struct {
	api.AgentClient
	dir  string
	puts int
	last *api.PutVolumeRequest
	err  error
}

func (a *volumeAgent) PutVolume(_ context.Context, r *api.PutVolumeRequest) (*api.PutVolumeResponse, error) {
	a.puts++
	a.last = r
	if a.err != nil || r.Scratch != nil {
		return &api.PutVolumeResponse{}, a.err
	}
	return &api.PutVolumeResponse{}, volume.Put(filepath.Join(a.dir, r.Name), r.Entries, r.Keep)
}

func TestAVolumeIsFollowedUntilTheMicroVMEnds(t *testing.T) {
	agent := &volumeAgent{dir: t.TempDir()}
	s := &Sandbox{Agent: agent, ended: make(chan struct{})}
	host := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := testpod.WriteVolume(host, map[string]string{"key": text}); err != nil {
			t.Fatal(err)
		}
	}
	guestHas := func(text string, puts int) {
		t.Helper()
		s.mirrors.mu.Lock()
		defer s.mirrors.mu.Unlock()
		got, err := os.ReadFile(agent.dir + "/v/key")
		if err != nil || string(got) != text || agent.puts != puts {
			t.Errorf("the guest has %q, error %v after %d calls, want %q after %d", got, err, agent.puts, text, puts)
		}
	}
	ctx := context.Background()
	if err := s.Mirror(ctx, "v", host); !errors.Is(err, mirror.ErrUnfit) {
		t.Errorf("an empty directory: error %v", err)
	}
	write("1")
	for range 2 { // the second container that has the volume
		if err := s.Mirror(ctx, "v", host); err != nil {
			t.Fatal(err)
		}
	}
	guestHas("1", 1)
	if err := s.Mirror(ctx, "v", t.TempDir()); err == nil {
		t.Error("one name stands for two volumes")
	}
	write("2")
	s.followOnce(ctx)
	guestHas("2", 2)

	// A guest that fails is left alone for a while, and then asked again.
	fail := func(err error) {
		s.mirrors.mu.Lock()
		defer s.mirrors.mu.Unlock()
		agent.err = err
	}
	fail(errors.New("no space"))
	write("3")
	s.followOnce(ctx)
	fail(nil)
	s.followOnce(ctx)
	guestHas("2", 3)
	s.mirrors.mu.Lock()
	s.mirrors.list["v"].rest = s.mirrors.list["v"].rest.Add(-mirrorRetry)
	s.mirrors.mu.Unlock()
	s.followOnce(ctx)
	guestHas("3", 4)

	if err := os.RemoveAll(host); err != nil {
		t.Fatal(err)
	}
	s.followOnce(ctx)
	guestHas("3", 4)
	close(s.ended)
	s.mirrors.wait()
}
