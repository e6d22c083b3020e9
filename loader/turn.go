// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// turnLimit is how long another process may hold the pins; a change takes
	// milliseconds. One that was stopped in the middle of one must be ended by
	// a person.
	turnLimit = 10 * time.Second
	turnRetry = 2 * time.Millisecond
)

// turn is a lock between the processes that share a pin folder. It ends with
// the process that holds it.
//
// A folder that somebody removed and we made again is another file: the lock is
// only good if it is on the one that has the name now.
type turn struct{ dir *os.File }

func openTurn(dir string) (*turn, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the pin folder: %w", err)
	}
	return &turn{f}, nil
}

// take waits for the lock.
func (t *turn) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	for {
		err := unix.Flock(int(t.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			stale, err := t.follow()
			if !stale || err != nil {
				return err
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("locking the pin folder: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for another daemon to finish with the pins in %s: %w", t.dir.Name(), context.Cause(ctx))
		case <-time.After(turnRetry):
		}
	}
}

// follow opens the folder anew if it is another one now. Without one there is
// nothing to follow to.
func (t *turn) follow() (stale bool, err error) {
	var have, want unix.Stat_t
	if err := unix.Fstat(int(t.dir.Fd()), &have); err != nil {
		return false, fmt.Errorf("looking at the pin folder: %w", err)
	}
	if err := unix.Stat(t.dir.Name(), &want); err != nil || have.Ino == want.Ino && have.Dev == want.Dev {
		return false, nil
	}
	next, err := openTurn(t.dir.Name())
	if err != nil {
		return false, err
	}
	_ = t.dir.Close()
	t.dir = next.dir
	return true, nil
}

func (t *turn) give() { _ = unix.Flock(int(t.dir.Fd()), unix.LOCK_UN) } // cannot fail on an open file

func (t *turn) close() error {
	if t == nil {
		return nil
	}
	return t.dir.Close()
}
