// SPDX-License-Identifier: Apache-2.0

package loader

// CgroupDir is where the cgroup2 hierarchy is mounted.
func CgroupDir() (string, error) {
	tree, err := findCgroups()
	return tree.dir, err
}

// LockFirst is LockNew without what follows in the background.
func (l *Loader) LockFirst(ifindex int) error {
	return l.change(func() error { return l.lockFirst(ifindex) })
}

// HaveLSM tells whether the kernel asks programs at its security hooks.
func HaveLSM() error { return haveLSM() }

// HaveTCX tells whether the kernel attaches programs by tcx.
func HaveTCX() error { return haveTCX() }

// Mend looks after everything once, in as many steps as that takes.
func (l *Loader) Mend() (steps int, err error) {
	for steps = 1; ; steps++ {
		var broken map[int]error
		err := l.change(func() (err error) { broken, err = l.mend(); return err })
		if err != nil || len(broken) > 0 || len(l.queue) == 0 {
			return steps, err
		}
	}
}
