// SPDX-License-Identifier: Apache-2.0

package store

import "time"

// SetWatchLife shortens the watches of an etcd store that begin after it.
func SetWatchLife(s Store, d time.Duration) { s.(*etcd).watchLife = d }
