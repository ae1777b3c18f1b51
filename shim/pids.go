package shim

import "sync"

// firstPID is the first process id that the shim gives to a process in a guest. It lies above the greatest id a
// Linux kernel ever gives out (PID_MAX_LIMIT, include/linux/threads.h: 4 Mi), so that no tool that looks up
// /proc/PID, or signals it, can hit a process of the host: the guest's own numbers would.
const firstPID = 4<<20 + 1

// pids gives each container and exec of a sandbox a process id for containerd.
type pids struct {
	mu   sync.Mutex
	next uint32
	ids  map[uint32]string
}

func newPIDs() *pids { return &pids{next: firstPID, ids: map[uint32]string{}} }

// add gives container id a process id.
func (p *pids) add(id string) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	pid := p.next
	p.next++
	p.ids[pid] = id
	return pid
}

// container returns the container whose init has this process id.
func (p *pids) container(pid uint32) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.ids[pid]
	return id, ok
}

func (p *pids) remove(pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ids, pid)
}
