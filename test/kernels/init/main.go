// SPDX-License-Identifier: Apache-2.0

// Command init is the first process of an emulated machine of test/kernels.
package main

import "github.com/c8s-dev/c8s/test/kernels/guest"

func main() { guest.Main() }
