package nodes

import (
	"context"
	"sync"

	"krun.dev/krunpod/test/deadline"
)

// queue hands tasks to nodes and collects their results.
type queue struct {
	mu      sync.Mutex
	tasks   []Task
	due     deadline.Deadline
	again   map[string]bool
	results []Result
	faults  []string
}

func newQueue(tasks []Task) *queue { return &queue{tasks: tasks, again: map[string]bool{}} }

// next takes a task from the queue; none after the end of ctx, nor after the deadline, so that those left are reported as not run.
func (q *queue) next(ctx context.Context) (Task, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tasks) == 0 || ctx.Err() != nil || q.due.Passed() {
		return Task{}, false
	}
	t := q.tasks[0]
	q.tasks = q.tasks[1:]
	return t, true
}

// add keeps a task's results and says how many tasks nobody has begun.
func (q *queue) add(results []Result) (left int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.results = append(q.results, results...)
	return len(q.tasks)
}

// broke notes a broken node and reports whether the task it took down is to run again.
func (q *queue) broke(t Task, fault string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.faults = append(q.faults, fault)
	if q.again[t.Name] {
		return false
	}
	q.again[t.Name] = true
	q.tasks = append([]Task{t}, q.tasks...)
	return true
}

// done returns a result for every test, also for those that nobody ran.
func (q *queue) done() []Result {
	q.mu.Lock()
	defer q.mu.Unlock()
	why := Result{Outcome: Failed, Output: "not run: no node was left to run it on"}
	if q.due.Passed() {
		why = Result{Outcome: NotRun, Output: deadline.Reason}
	}
	for _, t := range q.tasks {
		q.results = append(q.results, t.complete(nil, why)...)
	}
	q.tasks = nil
	return q.results
}
