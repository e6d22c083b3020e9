// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/nri/pkg/log"
)

// TestMain silences the runtime's half of NRI.
func TestMain(m *testing.M) {
	log.Set(silent{})
	os.Exit(m.Run())
}

type silent struct{}

func (silent) Debugf(context.Context, string, ...interface{}) {}
func (silent) Infof(context.Context, string, ...interface{})  {}
func (silent) Warnf(context.Context, string, ...interface{})  {}
func (silent) Errorf(context.Context, string, ...interface{}) {}
