// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// when is a moment as people and time elements write it.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// ago says how long before now a moment was.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	if d < 0 {
		return "in the future"
	}
	return span(d) + " ago"
}

// lasts says how long a moment is still to come.
func lasts(now, t time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + span(d)
	}
	return "over"
}

// span is a duration in its largest unit.
func span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / u.unit); n >= 2 || n == 1 && u.unit != time.Minute {
			return count(n, u.name)
		}
	}
	return count(int(d/time.Second), "second")
}

func count(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// groups breaks a digest into words that may wrap and that people can compare.
func groups(digest string) []string {
	digest = strings.TrimPrefix(digest, "sha256:")
	var words []string
	for len(digest) > 8 {
		words, digest = append(words, digest[:8]), digest[8:]
	}
	return append(words, digest)
}

// teeName is what the makers call it.
func teeName(kind string) string {
	switch kind {
	case policy.TEESEVSNP:
		return "AMD SEV-SNP"
	case policy.TEETDX:
		return "Intel TDX"
	}
	return kind
}

func ports(all []uint16) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = strconv.Itoa(int(p))
	}
	return strings.Join(words, ", ")
}
