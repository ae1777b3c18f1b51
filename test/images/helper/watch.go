package main

import (
	"fmt"

	"krun.dev/krunpod/test/testpod"
)

// watch prints what inotify(7) shows of directories.
func watch(dirs []string) error {
	failed := make(chan error)
	for _, dir := range dirs {
		w, err := testpod.NewWatch(dir)
		if err != nil {
			return err
		}
		go func() {
			for {
				events, err := w.Next()
				if err != nil {
					failed <- err
					return
				}
				for _, e := range events {
					fmt.Println(dir, e)
				}
			}
		}()
	}
	fmt.Println("watching")
	return <-failed
}
