package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Stage is one step of a sandbox's start.
type Stage struct {
	Name string `json:"name"`
	// At is the time in microseconds since the first stage, when this one was complete.
	At int64 `json:"us"`
}

// Timeline records when each stage of a sandbox's start was complete, from the shim's start to the container's. That one is when
// the agent's answer came that the container's process had gone on to execve(2): libcontainer says so when the process has
// closed its FIFO, the last that it does before. So the program's first instruction and the mark are as far apart as the exec
// and the answer on its way by vsock take. It is safe for concurrent use.
type Timeline struct {
	mu     sync.Mutex
	start  time.Time
	stages []Stage
	guest  []Stage
}

// NewTimeline begins at start, the time the shim process was started.
func NewTimeline(start time.Time) *Timeline {
	return &Timeline{start: start}
}

// Mark records that a stage is complete now.
func (t *Timeline) Mark(name string) { t.MarkAt(name, time.Now()) }

// MarkAt records that a stage was complete at a given time.
func (t *Timeline) MarkAt(name string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stages = append(t.stages, Stage{Name: name, At: at.Sub(t.start).Microseconds()})
}

func (t *Timeline) elapsed(now time.Time) time.Duration { return now.Sub(t.start) }

func (t *Timeline) setGuest(stages []Stage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.guest = stages
}

func (t *Timeline) save(d dir) error {
	t.mu.Lock()
	data, err := json.Marshal(Record{t.start, t.stages, t.guest})
	t.mu.Unlock()
	if err != nil {
		return err
	}
	return writeFile(d.timeline(), data)
}

// Record is a timeline on disk.
type Record struct {
	Start  time.Time `json:"start"`
	Stages []Stage   `json:"stages"`
	// Guest holds the guest's word on its own boot, since its kernel started.
	Guest []Stage `json:"guest,omitempty"`
}

// LoadTimeline reads the timeline of the sandbox in directory path.
func LoadTimeline(path string) (Record, error) {
	var r Record
	data, err := os.ReadFile(dir(path).timeline())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("timeline of the sandbox in %s: %w", path, err)
	}
	return r, nil
}

// barWidth is the width of a timeline's bars in characters.
const barWidth = 40

// Print draws the host's stages and then the guest's.
func (r Record) Print(out io.Writer) {
	PrintTimeline(out, r.Stages)
	if len(r.Guest) > 0 {
		fmt.Fprintln(out, "\nof it, in the guest, by its own clock since its kernel started:")
		PrintTimeline(out, r.Guest)
	}
}

// PrintTimeline draws each stage as a bar from the end of the one before to its own.
func PrintTimeline(out io.Writer, stages []Stage) {
	if len(stages) == 0 {
		return
	}
	total := max(1, stages[len(stages)-1].At)
	before := int64(0)
	for _, s := range stages {
		from := int(before * barWidth / total)
		to := min(barWidth, max(from+1, int(s.At*barWidth/total)))
		fmt.Fprintf(out, "%8.1f ms  %+8.1f  %-*s  %s\n", float64(s.At)/1000, float64(s.At-before)/1000,
			barWidth, strings.Repeat(" ", min(from, barWidth-1))+strings.Repeat("█", max(1, to-from)), s.Name)
		before = s.At
	}
}
