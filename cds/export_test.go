// SPDX-License-Identifier: Apache-2.0

package cds

import "time"

// SetCallTime shortens what callers are given for a call, for tests of slow ones.
func (s *Server) SetCallTime(d time.Duration) { s.callTime = d }
