// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience bounds how long killed processes may take to disappear.
const killPatience = 5 * time.Second

// killInNamespaces ends every process whose network namespace is one of the
// given ones (by inode), except this process, and waits until none is left.
// Looking again after each round catches what was forked meanwhile.
func killInNamespaces(inodes map[uint64]bool) error {
	if len(inodes) == 0 {
		return nil
	}
	deadline := time.Now().Add(killPatience)
	for {
		pids, err := processesIn(inodes)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("ending processes: %v do not die", pids)
		}
		for _, pid := range pids {
			if err := killIfIn(pid, inodes); err != nil {
				return err
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// processesIn lists processes by namespace. Zombies have no namespace any
// more (their link reads ENOENT or ESRCH), so they do not count.
func processesIn(inodes map[uint64]bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if inodes[netnsOf(pid)] {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// netnsOf returns the inode of a process's network namespace, 0 if unknown.
func netnsOf(pid int) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err != nil {
		return 0
	}
	return st.Ino
}

// killIfIn kills through a pidfd and checks the namespace once more after
// opening it: the id may have been reused since the listing.
func killIfIn(pid int, inodes map[uint64]bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !inodes[netnsOf(pid)] {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	return nil
}
