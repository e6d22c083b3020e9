// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"
)

func rec(n int) Record { return Record{Verdict: Allowed, BytesSent: int64(n)} }

func TestHistoryIsTheNewestRecordsOldestFirst(t *testing.T) {
	r := NewRing(4)
	for i := range 10 {
		r.Add(rec(i))
	}
	for _, tt := range []struct{ ask, first, n int }{{0, 0, 0}, {2, 8, 2}, {4, 6, 4}, {100, 6, 4}} {
		s := r.Subscribe(tt.ask, Filter{})
		h := s.History()
		s.Close()
		if len(h) != tt.n || tt.n > 0 && (h[0].BytesSent != int64(tt.first) || h[tt.n-1].BytesSent != 9) {
			t.Errorf("history of %d: %+v", tt.ask, h)
		}
	}
}

func TestSlowReaderLosesRecordsAndIsToldHowMany(t *testing.T) {
	r := NewRing(4)
	s := r.Subscribe(0, Filter{})
	defer s.Close()
	for i := range 10 {
		r.Add(rec(i)) // would deadlock if Add waited for the reader
	}
	first, err := s.Next(t.Context())
	if err != nil || first.BytesSent != 6 || first.Gap != 6 {
		t.Fatalf("got %+v, %v; want record 6 with a gap of 6", first, err)
	}
	second, err := s.Next(t.Context())
	if err != nil || second.BytesSent != 7 || second.Gap != 0 {
		t.Fatalf("got %+v, %v; want record 7 without a gap", second, err)
	}
}

func TestEveryRecordIsReadOrCountedAsGap(t *testing.T) {
	const total = 20000
	r := NewRing(64)
	s := r.Subscribe(0, Filter{})
	defer s.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range total / 4 {
				r.Add(rec(w*total + i))
			}
		})
	}
	seen := uint64(0)
	for seen < total {
		got, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen += 1 + got.Gap
	}
	wg.Wait()
	if seen != total || r.Counts()[CountKey{Allowed, ""}] != total {
		t.Errorf("read or missed %d, counted %v, want %d", seen, r.Counts(), total)
	}
}

func TestNextEndsWithTheContextAndWithClose(t *testing.T) {
	r := NewRing(1)
	s := r.Subscribe(0, Filter{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	time.AfterFunc(time.Millisecond, s.Close)
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestRecordSurvivesJSON(t *testing.T) {
	in := Record{
		Time: time.Unix(1, 2).UTC(), Verdict: Refused, Direction: Kernel, Reason: "r", Rule: "x", Expected: "e", Actual: "a",
		Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("[fd00::1]:2"),
		SrcID: "s", DstID: "d", SrcWorkload: "sw", DstWorkload: "dw", Pod: "p", Node: "n",
		BytesSent: 1, BytesReceived: 2, Duration: time.Second, Suppressed: 3, Gap: 4,
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Record
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("%s\n%+v\n%v", text, out, err)
	}
}
