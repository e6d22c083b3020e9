// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress"
	"github.com/c8s-dev/c8s/policy"
)

func TestWildcardRoutesHaveTheHostsThatOperatorsListBelowThem(t *testing.T) {
	listed := []string{"bank.example", "a.bank.example", "b.a.bank.example", "*.bank.example", "shop.example"}
	for _, tt := range []struct {
		wildcards bool
		want      []string
	}{{true, []string{"a.bank.example", "*.bank.example"}}, {false, []string{"a.bank.example"}}} {
		if got := covered("*.bank.example", listed, tt.wildcards); !slices.Equal(got, tt.want) {
			t.Errorf("wildcard certificates %v: %v, want %v", tt.wildcards, got, tt.want)
		}
	}
	if got := covered("*.elsewhere.example", listed, true); len(got) != 0 {
		t.Errorf("a wildcard that nobody listed has %v", got)
	}
}

// meshOf answers every Dial with an error.
type meshOf struct {
	ingress.Mesh
	err error
}

func (m meshOf) Dial(context.Context, resolve.Target, func(string) policy.Decision) (ingress.Conn, error) {
	return nil, m.err
}

func TestOwnersOfRoutesHearWhatCameOfConnections(t *testing.T) {
	refused := errors.New("refused")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx     context.Context
		service string
		err     error
		told    bool
	}{
		"a connection":       {t.Context(), "default/web", nil, true},
		"a refusal":          {t.Context(), "default/web", refused, true},
		"no Service":         {t.Context(), "", refused, false},
		"the client is gone": {gone, "default/web", refused, false},
	} {
		var service string
		var heard error
		told := false
		mesh := telling{meshOf{err: tt.err}, func(s string, err error) { service, heard, told = s, err, true }}
		_, err := mesh.Dial(tt.ctx, resolve.Target{Service: tt.service}, nil)
		if !errors.Is(err, tt.err) || told != tt.told || told && (service != tt.service || !errors.Is(heard, tt.err)) {
			t.Errorf("%s: %v; told %t of %q: %v", name, err, told, service, heard)
		}
	}
}

func TestConfigurationMustBeWhole(t *testing.T) {
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("an ingress of nothing was made")
	}
}
