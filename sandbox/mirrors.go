package sandbox

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/sandbox/mirror"
)

const (
	// mirrorInterval is how often volumes are looked at on the host. Not by inotify(7): almost every pod has such a
	// volume, its token, and fs.inotify.max_user_instances leaves root 128 on a kernel that nobody has tuned.
	mirrorInterval = time.Second
	// mirrorRetry is how long a volume is left alone whose new version could not be brought into the guest.
	mirrorRetry = 30 * time.Second
	// mirrorTimeout bounds bringing one version into the guest, on a machine that is ten times slower than a good one.
	mirrorTimeout = 30 * time.Second
)

// mirrors are the volumes that the guest has copies of.
type mirrors struct {
	// mu is held while a volume is brought into the guest.
	mu   sync.Mutex
	list map[string]*mirrored

	follower sync.WaitGroup
}

// mirrored is a volume of which the guest has the version that mark stands for.
type mirrored struct {
	source, mark string
	// rest ends a pause after a failure.
	rest time.Time
}

// Mirror copies the volume at source, a directory that the kubelet keeps, to api.VolumeDir/name in the guest, and goes on
// to do so whenever it changes. When it returns, the guest has its present version.
func (s *Sandbox) Mirror(ctx context.Context, name, source string) error {
	s.mirrors.mu.Lock()
	defer s.mirrors.mu.Unlock()
	m := s.mirrors.list[name]
	if m == nil {
		m = &mirrored{source: source}
	}
	if m.source != source {
		return fmt.Errorf("volume %s is %s and cannot be %s too", name, m.source, source)
	}
	if err := s.bring(ctx, name, m); err != nil {
		return err
	}
	if s.mirrors.list == nil {
		s.mirrors.list = map[string]*mirrored{}
		s.mirrors.follower.Go(s.followVolumes)
	}
	s.mirrors.list[name] = m
	return nil
}

// bring puts the present version of m into the guest.
func (s *Sandbox) bring(ctx context.Context, name string, m *mirrored) error {
	v, err := mirror.Read(m.source)
	if err != nil {
		return fmt.Errorf("read volume %s: %w", m.source, err)
	}
	if v.Mark == m.mark {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	if _, err := s.Agent.PutVolume(ctx, &api.PutVolumeRequest{Name: name, Entries: v.Entries, Keep: v.Keep}); err != nil {
		return fmt.Errorf("copy volume %s into the guest: %w", m.source, err)
	}
	m.mark = v.Mark
	return nil
}

// followVolumes brings what changes into the guest, until that ends.
func (s *Sandbox) followVolumes() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(mirrorInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.Done():
			return
		case <-tick.C:
			s.followOnce(ctx)
		}
	}
}

func (s *Sandbox) followOnce(ctx context.Context) {
	s.mirrors.mu.Lock()
	defer s.mirrors.mu.Unlock()
	for name, m := range s.mirrors.list {
		mark, err := mirror.Mark(m.source)
		// A volume that cannot be read any more is one that the kubelet removes: the guest keeps what it has.
		if err != nil || mark == m.mark || time.Now().Before(m.rest) {
			continue
		}
		if err := s.bring(ctx, name, m); err != nil {
			m.rest = time.Now().Add(mirrorRetry)
			log.G(ctx).WithError(err).WithField("sandbox", s.spec.ID).WithField("volume", name).
				Warn("a volume has changed and its containers do not see it yet")
		}
	}
}

// wait returns when no volume is followed any more, which the end of the VM and of the connection to it brings about.
func (m *mirrors) wait() { m.follower.Wait() }
