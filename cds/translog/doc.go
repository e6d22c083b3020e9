// SPDX-License-Identifier: Apache-2.0

// Package translog is the CDS's append-only log. Nothing is believed about the
// log that does not hash to a signed root: a [Tree] checks whatever it reads
// from its storage against its own root before using it, an [Auditor] checks
// whatever it fetches against a checkpoint signed with the log's key. Storage,
// mirrors and networks can withhold the log, but not change it.
//
// The formats are those of C2SP: tlog-tiles with tiles of height 8,
// tlog-checkpoint, and tlog-cosignature (cosignature/v1). Hashing, proofs and
// signed notes are golang.org/x/mod/sumdb/{tlog,note}. The page docs/log.md
// describes every format byte by byte.
//
// The package has no clock, and the log's side of it no I/O but [Storage].
package translog
