// SPDX-License-Identifier: Apache-2.0

package pause

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPauseEndsWithWhateverComesFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		d, kick, end, want time.Duration // zero: there is no kick, no end
	}{
		"the time":              {d: time.Minute, want: time.Minute},
		"the time, with a kick": {d: time.Minute, kick: time.Hour, want: time.Minute},
		"a kick":                {d: time.Hour, kick: time.Minute, want: time.Minute},
		"the end":               {d: time.Hour, kick: time.Hour, end: time.Minute, want: time.Minute},
		"no time":               {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var kick chan struct{}
				if tt.kick > 0 {
					kick = make(chan struct{}, 1)
					defer time.AfterFunc(tt.kick, func() { kick <- struct{}{} }).Stop()
				}
				if tt.end > 0 {
					defer time.AfterFunc(tt.end, cancel).Stop()
				}
				began := time.Now()
				For(ctx, tt.d, kick)
				if took := time.Since(began); took != tt.want {
					t.Errorf("it took %s, want %s", took, tt.want)
				}
			})
		})
	}
}
