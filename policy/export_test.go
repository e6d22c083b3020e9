// SPDX-License-Identifier: Apache-2.0

package policy

// PreAuth lets tests compare the DSSE encoding with its published example.
var PreAuth = preAuth
