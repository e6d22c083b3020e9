// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

// patience ends a test that waits for something that does not come.
const patience = time.Minute

func openEtcd(t testing.TB, cfg store.EtcdConfig) store.Store {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = "/test"
	}
	s, err := store.OpenEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestEtcdConforms(t *testing.T) {
	cluster := etcdtest.Start(t, 1)
	var n atomic.Int64
	open := func(t *testing.T) store.Store {
		return openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), Prefix: fmt.Sprintf("/c8s/%d", n.Add(1))})
	}
	t.Run("plain", func(t *testing.T) { storetest.Conform(t, open) })
	t.Run("sealed", func(t *testing.T) {
		storetest.Conform(t, func(t *testing.T) store.Store { return seal(t, open(t), 1) })
	})
}

func TestEtcdStaysUnderItsPrefix(t *testing.T) {
	cluster := etcdtest.Start(t, 1)
	client, err := cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, key := range []string{"/c8", "/c8s", "/c8s0", "/c8sother/k", "0"} {
		if _, err := client.Put(t.Context(), key, "not ours"); err != nil {
			t.Fatal(err)
		}
	}
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), Prefix: "/c8s"})
	_, err = s.Commit(t.Context(), store.Txn{
		If:           []store.Condition{{Key: "other/k"}, {Key: "0"}},
		Put:          []store.Item{{Key: "k"}},
		Delete:       []string{"0"},
		DeletePrefix: []string{"\xff", "\xff\xff", "o"},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Scan(t.Context(), "", func(key string, _ store.Value) error {
		if key != "k" {
			t.Errorf("listed %q", key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(t.Context(), "\x00", fromKey()...)
	if err != nil || len(resp.Kvs) != 6 {
		t.Errorf("%d keys are in etcd, %v; want 5 of others and one of ours", len(resp.Kvs), err)
	}
}

func TestEtcdConfigurationIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  store.EtcdConfig
		want string
	}{
		{"no endpoint", store.EtcdConfig{Prefix: "/p"}, "no endpoint"},
		{"https without TLS", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"https://h:1"}}, "must be http://"},
		// The client would speak to all of them in the clear.
		{"http with TLS", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"http://h:1", "https://h:2"}, TLS: &tls.Config{}}, "must be https://"},
		{"mixed", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"http://h:1", "https://h:2"}}, "must be http://"},
		{"no scheme", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"h:1"}}, "must be http://"},
		{"path", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"http://h:1/path"}}, "must be http://"},
		{"user in the URL", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"http://u:p@h:1"}}, "must be http://"},
		{"password in the clear", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"http://h:1"}, Username: "u", Password: "hunter2"}, "in the clear"},
		{"half a login", store.EtcdConfig{Prefix: "/p", Endpoints: []string{"https://h:1"}, TLS: &tls.Config{}, Username: "u"}, "or neither"},
		{"no prefix", store.EtcdConfig{Endpoints: []string{"http://h:1"}}, "prefix"},
		{"slash alone", store.EtcdConfig{Prefix: "/", Endpoints: []string{"http://h:1"}}, "prefix"},
		{"long prefix", store.EtcdConfig{Prefix: strings.Repeat("p", 257), Endpoints: []string{"http://h:1"}}, "prefix"},
	} {
		s, err := store.OpenEtcd(tc.cfg)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", tc.name)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want it to say %q and no password", tc.name, err, tc.want)
		}
	}
}

func TestEtcdThatIsNotThereIsAnErrorAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := store.OpenEtcd(store.EtcdConfig{
			Endpoints:      []string{"http://" + l.Addr().String()},
			Prefix:         "/p",
			DialTimeout:    time.Hour,
			RequestTimeout: time.Hour,
		})
		failed <- err
	}()
	select {
	case err := <-failed:
		if err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("%v, want one that names the endpoint", err)
		}
	case <-time.After(patience):
		t.Fatal("still trying")
	}
}

// unknown fails t unless err leaves open whether the transaction was applied.
func unknown(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v, want an error that leaves the outcome open", err)
	}
}
