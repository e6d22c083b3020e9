// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	defaultDialTimeout    = 5 * time.Second
	defaultRequestTimeout = 5 * time.Second
	maxPrefixLen          = 256

	// A connection whose other side is silent is given up after keepAlive plus
	// keepAliveAnswer. gRPC knows no shorter interval than ten seconds.
	keepAlive       = 10 * time.Second
	keepAliveAnswer = 3 * time.Second
	// reconnectMax is the longest pause between attempts to reconnect; gRPC's
	// own two minutes would outlast most failures.
	reconnectMax = 3 * time.Second
	// immediateRetries is how often the client repeats a read that a member
	// refused, 25 ms apart, before it says so.
	immediateRetries = 10

	// A page of Scan, and the largest answer taken: the values of a full page.
	etcdPageKeys  = 32
	etcdAnswerMax = 64 << 20
)

// EtcdConfig says how to reach etcd.
type EtcdConfig struct {
	// Endpoints are URLs: all https with TLS, all http without.
	Endpoints []string
	// Prefix of all keys, which is what etcd's permissions are given for. A
	// slash is added at its end if there is none. It may not be empty.
	Prefix string
	// TLS says whom to trust and what to show; nil for http.
	TLS *tls.Config
	// Username and Password, if etcd's authentication is by password. Not
	// allowed over http.
	Username, Password string
	// DialTimeout limits OpenEtcd, RequestTimeout every request. Zero means
	// five seconds.
	DialTimeout, RequestTimeout time.Duration
	// Log gets what happens to watches; nil discards it.
	Log *slog.Logger
}

type etcd struct {
	client  *clientv3.Client
	prefix  string
	timeout time.Duration
	log     *slog.Logger
	// watchLife bounds how long a watch can be deaf without a sign of it.
	watchLife time.Duration

	// ctx ends with Close; watches are the goroutines of Watch.
	ctx     context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex // orders watches.Go before watches.Wait
	watches sync.WaitGroup
}

// OpenEtcd uses an etcd cluster, which any number of processes may share. It
// fails if none of the endpoints answers.
func OpenEtcd(cfg EtcdConfig) (Store, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuring etcd: %w", err)
	}
	e := &etcd{
		prefix:    strings.TrimSuffix(cfg.Prefix, "/") + "/",
		timeout:   orDefault(cfg.RequestTimeout, defaultRequestTimeout),
		log:       cfg.Log,
		watchLife: defaultWatchLife,
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	dial := orDefault(cfg.DialTimeout, defaultDialTimeout)
	client, err := clientv3.New(clientv3.Config{
		Context:              e.ctx,
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		Username:             cfg.Username,
		Password:             cfg.Password,
		DialTimeout:          dial,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveAnswer,
		MaxCallRecvMsgSize:   etcdAnswerMax,
		MaxUnaryRetries:      immediateRetries,
		Logger:               zap.NewNop(), // what matters is returned
		DialOptions:          dialOptions(),
	})
	if err != nil {
		e.cancel()
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), explain(err))
	}
	e.client = client
	if _, err := e.read(e.ctx, dial, e.prefix, clientv3.WithCountOnly()); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err), e.Close())
	}
	return e, nil
}

func dialOptions() []grpc.DialOption {
	pauses := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax}
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: reconnectMax}),
		grpc.WithChainUnaryInterceptor(failFast),
	}
}

// failFast has requests fail when no endpoint can be reached. The client would
// have them wait for one until their time is over.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return next(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.WaitForReady(false))...)
}

// check refuses in particular what the client would do without a word: it
// decides by the first endpoint's scheme whether any of them is spoken to with
// TLS, whatever TLS says.
func (cfg EtcdConfig) check() error {
	if len(cfg.Endpoints) == 0 {
		return errors.New("no endpoint is given")
	}
	scheme := "http"
	if cfg.TLS != nil {
		scheme = "https"
	}
	for _, e := range cfg.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != scheme || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("endpoint %q must be %s://host:port, because TLS is configured: %t", e, scheme, cfg.TLS != nil)
		}
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return errors.New("a user name and a password are needed, or neither")
	}
	if cfg.Password != "" && cfg.TLS == nil {
		return errors.New("the password would be sent in the clear: use https endpoints and TLS")
	}
	if strings.Trim(cfg.Prefix, "/") == "" || len(cfg.Prefix) > maxPrefixLen {
		return fmt.Errorf("the prefix must have 1 to %d bytes other than slashes", maxPrefixLen)
	}
	return nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

func (e *etcd) Get(ctx context.Context, key string) (Value, error) {
	resp, err := e.read(ctx, e.timeout, e.prefix+key)
	if err == nil && len(resp.Kvs) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Value{}, fmt.Errorf("reading %q from etcd: %w", key, err)
	}
	return Value{Data: resp.Kvs[0].Value, Version: Version(resp.Kvs[0].ModRevision)}, nil
}

// read asks twice within the time given: a member that is silent is not
// known to be so until its keep-alive fails, and the second attempt goes to
// another one.
func (e *etcd) read(ctx context.Context, timeout time.Duration, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	first, cancelFirst := context.WithTimeout(ctx, timeout/2)
	defer cancelFirst()
	resp, err := e.client.Get(first, key, opts...)
	if err != nil && first.Err() != nil && ctx.Err() == nil {
		resp, err = e.client.Get(ctx, key, opts...)
	}
	return resp, explain(err)
}

func (e *etcd) Scan(ctx context.Context, prefix string, fn func(string, Value) error) error {
	full := e.prefix + prefix
	end := clientv3.GetPrefixRangeEnd(full)
	for from, more := full, true; more; {
		resp, err := e.read(ctx, e.timeout, from, clientv3.WithRange(end), clientv3.WithLimit(etcdPageKeys))
		if err != nil {
			return fmt.Errorf("listing %q in etcd: %w", prefix, err)
		}
		for _, kv := range resp.Kvs {
			key := string(kv.Key)
			// Etcd is not trusted, and order is what callers rely on.
			if key < from || !strings.HasPrefix(key, full) {
				return fmt.Errorf("listing %q in etcd: it answered with %q, which is out of order", prefix, key)
			}
			from = key + "\x00"
			if err := fn(key[len(e.prefix):], Value{Data: kv.Value, Version: Version(kv.ModRevision)}); err != nil {
				return err
			}
		}
		more = resp.More && len(resp.Kvs) > 0
	}
	return nil
}

// Commit is one etcd transaction, which the client never repeats once it was
// sent.
func (e *etcd) Commit(ctx context.Context, t Txn) (Version, error) {
	if err := t.Check(); err != nil {
		return 0, fmt.Errorf("writing to etcd: %w", err)
	}
	var conds []clientv3.Cmp
	for _, c := range t.If {
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(e.prefix+c.Key), "=", int64(c.Version)))
	}
	var ops []clientv3.Op
	for _, p := range t.Put {
		ops = append(ops, clientv3.OpPut(e.prefix+p.Key, string(p.Data)))
	}
	for _, k := range t.Delete {
		ops = append(ops, clientv3.OpDelete(e.prefix+k))
	}
	for _, p := range t.DeletePrefix {
		ops = append(ops, clientv3.OpDelete(e.prefix+p, clientv3.WithPrefix()))
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	resp, err := e.client.Txn(ctx).If(conds...).Then(ops...).Commit()
	switch {
	case err != nil:
		return 0, fmt.Errorf("writing to etcd: %w", explain(err))
	case !resp.Succeeded:
		return 0, fmt.Errorf("writing to etcd: %w", ErrConflict)
	case len(t.Put) == 0:
		return 0, nil
	}
	return Version(resp.Header.Revision), nil
}

// explain adds what an operator can do.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: compact and defragment etcd or raise its quota, then disarm the alarm", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%w: the user needs read and write permission for the whole prefix", err)
	case status.Code(err) == codes.Unavailable, errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer: %w", err)
	}
	return err
}

// Close ends the watches and waits for them.
func (e *etcd) Close() error {
	e.mu.Lock()
	e.cancel()
	e.mu.Unlock()
	e.watches.Wait()
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the connection to etcd: %w", err)
	}
	return nil
}
