// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"hash"
)

// AuthenticodeWith is Authenticode with another hash, as signatures have it.
func AuthenticodeWith(h hash.Hash, image []byte) error {
	return authenticode(h, bytes.NewReader(image), int64(len(image)))
}

// Extend replays events, for comparison with real registers.
func Extend(events ...Digest) Digest { return extend(events...) }
