// SPDX-License-Identifier: Apache-2.0

package thread_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/thread"
)

// together calls start until many functions run at once, each on a thread
// it keeps, and returns the threads' ids.
func together(start func(f func())) map[int]bool {
	const many = 64
	running, release := make(chan int), make(chan struct{})
	for range many {
		start(func() {
			running <- unix.Gettid()
			<-release
		})
	}
	ids := map[int]bool{}
	for range many {
		ids[<-running] = true
	}
	close(release)
	return ids
}

// locked is what Go does without its care for the main thread.
func locked(f func()) {
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		f()
	}()
}

func TestNeverTheMainThread(t *testing.T) {
	usual := 0
	for range 50 {
		if together(locked)[unix.Getpid()] {
			usual++
		}
		if together(thread.Go)[unix.Getpid()] {
			t.Fatal("a function was given the main thread")
		}
	}
	if usual == 0 {
		t.Error("the main thread runs no goroutines at all: this test shows nothing")
	}
}
