// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// Account returns what an image's passwd and group files make of the user that
// its configuration names, as containerd reads them: "user", "uid",
// "user:group" or "uid:gid"; none is root. It is nil where a name stands in
// neither file.
func Account(user string, passwd, group []byte) *policy.UserFacts {
	name, groupName, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	a, found := findUser(name, passwd)
	if !found {
		uid, ok := number(name)
		if !ok {
			return nil
		}
		a = account{uid: uid}
	}
	facts := &policy.UserFacts{UID: a.uid, GID: a.gid}
	if hasGroup {
		gid, ok := findGroup(groupName, group)
		if !ok {
			return nil
		}
		facts.GID = gid
	}
	if a.name != "" {
		facts.Groups = memberships(a.name, group)
	}
	return facts
}

type account struct {
	name     string
	uid, gid uint32
}

// findUser looks for a name, or else for a number. The first line counts.
func findUser(name string, passwd []byte) (account, bool) {
	uid, numeric := number(name)
	for f := range records(passwd, 4) {
		u, okUID := number(f[2])
		g, okGID := number(f[3])
		if okUID && okGID && (f[0] == name || numeric && u == uid) {
			return account{f[0], u, g}, true
		}
	}
	return account{}, false
}

func findGroup(name string, group []byte) (uint32, bool) {
	for f := range records(group, 3) {
		if gid, ok := number(f[2]); ok && f[0] == name {
			return gid, true
		}
	}
	return number(name)
}

// memberships are the groups that list a user.
func memberships(user string, group []byte) []uint32 {
	var gids []uint32
	for f := range records(group, 4) {
		gid, ok := number(f[2])
		if ok && slices.Contains(strings.Split(f[3], ","), user) && !slices.Contains(gids, gid) {
			gids = append(gids, gid)
		}
	}
	return gids
}

// records yields the lines of at least n fields.
func records(file []byte, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(file) {
			fields := strings.Split(strings.TrimSpace(string(line)), ":")
			if len(fields) >= n && fields[0] != "" && !yield(fields) {
				return
			}
		}
	}
}

func number(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil
}
