package main

import (
	"context"
	"errors"

	"krun.dev/krunpod/test/testpod"
)

// gather starts n idle pods and reads what each takes while all are there: their processes share the pages of the same
// binaries, and PSS divides those among them.
func gather(ctx context.Context, client *testpod.Client, handler string, n int, s *samples) (err error) {
	before, err := pssByProcess()
	if err != nil {
		return err
	}
	var pods []*testpod.Pod
	defer func() { err = errors.Join(err, removeAll(ctx, pods)) }()
	for range n {
		p, err := client.Run(ctx, handler, client.PodConfig("crowd"))
		if err != nil {
			return err
		}
		pods = append(pods, p)
		k, err := idle(ctx, p)
		if err != nil {
			return err
		}
		if err := k.Start(ctx); err != nil {
			return err
		}
	}
	if err := settle(ctx); err != nil {
		return err
	}
	after, err := pssByProcess()
	if err != nil {
		return err
	}
	s.Crowd, s.CrowdPSS = n, added(before, after)
	for name := range s.CrowdPSS {
		s.CrowdPSS[name] /= n
	}
	return nil
}

func removeAll(ctx context.Context, pods []*testpod.Pod) (err error) {
	for _, p := range pods {
		err = errors.Join(err, p.Remove(context.WithoutCancel(ctx)))
	}
	return err
}
