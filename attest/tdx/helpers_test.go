// SPDX-License-Identifier: Apache-2.0

package tdx_test

import "encoding/hex"

type hexText []byte

func (h *hexText) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}
