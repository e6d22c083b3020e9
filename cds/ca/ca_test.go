// SPDX-License-Identifier: Apache-2.0

package ca

import "testing"

func TestSerialsAreLongAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		if serial.Sign() <= 0 || serial.BitLen() > 128 || seen[serial.String()] {
			t.Fatalf("serial %s", serial)
		}
		seen[serial.String()] = true
	}
}
