// SPDX-License-Identifier: Apache-2.0

// Package thread gives tests operating system threads to move for good: into
// another namespace, to another user.
//
// Invariant: such a thread ends with the function that moved it, and the
// process's main thread, which cannot end, is never one of them. It would stay
// where the function took it, and with it all that /proc/PID says of the
// process.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Go starts f on a thread that runs nothing else and ends when f returns.
func Go(f func()) { go run(f) }

func run(f func()) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// This is the main thread. Nobody else gets it until f has another.
	elsewhere := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(elsewhere)
		f()
	}()
	<-elsewhere
	runtime.UnlockOSThread()
}
