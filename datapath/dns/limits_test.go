// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func TestManyPodsAskAsOne(t *testing.T) {
	release := make(chan struct{})
	o := newOutsider(t, nil)
	answer := records(t, "api.example.com. 0 IN A 192.0.2.1")
	slow := script(func(q *miekg.Msg, tcp bool) [][]byte { <-release; return answer(q, tcp) })
	o.script.Store(&slow)
	s := newSite(t, o.use)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			var m miekg.Msg
			wire := s.server.Answer(context.Background(), s.asker(fmt.Sprint(i)), packed(t, question("api.example.com.", miekg.TypeA)), false)
			if err := m.Unpack(wire); err != nil || len(m.Answer) != 1 {
				t.Errorf("%v, %v", &m, err)
			}
		})
	}
	for len(o.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if q := o.questions(); len(q) != 1 {
		t.Errorf("upstream heard %q", q)
	}
	if s.ask("api.example.com.", miekg.TypeA); len(o.questions()) != 1 {
		t.Error("an answer that lives for no time is asked for at once again")
	}
}

func TestPodThatGoesAwayEndsNobodyElsesQuestion(t *testing.T) {
	release := make(chan struct{})
	answer := records(t, "api.example.com. 60 IN A 192.0.2.1")
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte { <-release; return answer(q, tcp) })
	s := newSite(t, o.use)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan []byte)
	q := packed(t, question("api.example.com.", miekg.TypeA))
	go func() { gone <- s.server.Answer(ctx, s.asker("first"), q, false) }()
	for len(o.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-gone
	close(release)
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" || len(o.questions()) != 1 {
		t.Errorf("%s; upstream heard %q", got, o.questions())
	}
}

func TestBudgetsOfOnePodAreNotOthers(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Limits.QueriesPerSecond = 10 })
	q := packed(t, question("web.default.svc.cluster.local.", miekg.TypeA))
	answered := func(uid string, n int) (count int) {
		for range n {
			if s.server.Answer(t.Context(), s.asker(uid), q, false) != nil {
				count++
			}
		}
		return count
	}
	if n := answered("loud", 100); n != 20 {
		t.Errorf("%d of a burst", n)
	}
	if n := answered("quiet", 10); n != 10 {
		t.Errorf("another pod: %d", n)
	}
	s.pass(time.Second)
	if n := answered("loud", 100); n != 10 {
		t.Errorf("%d in a second", n)
	}
	if s.count(Limited) != 170 {
		t.Errorf("%v", s.server.Status().Queries)
	}
	s.server.Forget("loud")
	if n := answered("loud", 100); n != 20 {
		t.Errorf("%d of another pod with this UID", n)
	}
}

func TestPodsThatAskNothingAreForgotten(t *testing.T) {
	s := newSite(t)
	for i := range 100 {
		s.server.pods.of(fmt.Sprint(i), s.now())
	}
	s.pass(forgetAfter + time.Second)
	s.server.pods.of("0", s.now())
	s.server.pods.of("new", s.now())
	if n := len(s.server.pods.all); n != 2 {
		t.Errorf("%d are remembered", n)
	}
}

func TestNamesBelowWildcardsAreLimited(t *testing.T) {
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte {
		return records(t, q.Question[0].Name+" 1 IN A 192.0.2.1")(q, tcp)
	})
	s := newSite(t, o.use, func(c *Config) { c.Limits.NamesPerMinute = 3 })
	ask := func(name, want string) {
		t.Helper()
		if got := short(s.ask(name, miekg.TypeA)); got != want {
			t.Errorf("%s: %s", name, got)
		}
		s.pass(minTTL) // nothing comes from the cache
	}
	for i := range 3 {
		ask(fmt.Sprintf("n%d.wild.example.com.", i), "NOERROR; A 192.0.2.1")
	}
	ask("n3.wild.example.com.", "REFUSED")
	ask("n0.wild.example.com.", "NOERROR; A 192.0.2.1") // the same again
	ask("api.example.com.", "NOERROR; A 192.0.2.1")     // listed itself
	if all := s.refusals(); len(all) != 1 || all[0].Reason != "dns-too-many-names" {
		t.Errorf("%+v", all)
	}
	s.pass(namesWindow)
	ask("n3.wild.example.com.", "NOERROR; A 192.0.2.1")
	if q := o.questions(); len(q) != 6 {
		t.Errorf("upstream heard %q", q)
	}
}

func TestQuestionsAtOnceAreLimited(t *testing.T) {
	o := newOutsider(t, nothing)
	s := newSite(t, o.use, func(c *Config) {
		c.Limits = Limits{Questions: 2, Waiting: 3, Attempt: 10 * time.Second, Total: 20 * time.Second}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ask := func(uid, name string) string {
		var m miekg.Msg
		if err := m.Unpack(s.server.Answer(ctx, s.asker(uid), packed(t, question(name, miekg.TypeA)), false)); err != nil {
			t.Error(err)
		}
		return short(&m)
	}
	for _, name := range []string{"a", "b"} {
		wg.Go(func() { ask("pod", name+".wild.example.com.") })
	}
	for len(o.questions()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if got := ask("other", "c.wild.example.com."); got != "SERVFAIL" {
		t.Errorf("one more of the node: %s", got)
	}
	wg.Go(func() { ask("pod", "a.wild.example.com.") }) // waits with the first
	for s.server.pods.of("pod", s.now()).waiting.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	if got := ask("pod", "a.wild.example.com."); got != "SERVFAIL" || s.count(Limited) != 1 {
		t.Errorf("one more of the pod: %s, %v", got, s.server.Status().Queries)
	}
	if len(o.questions()) != 2 {
		t.Errorf("upstream heard %q", o.questions())
	}
}

func TestPodWithSlowNamesLeavesRoomForOthers(t *testing.T) {
	answer := records(t, "api.example.com. 60 IN A 192.0.2.1")
	o := newOutsider(t, func(q *miekg.Msg, tcp bool) [][]byte {
		if strings.Contains(q.Question[0].Name, ".wild.") {
			return nil
		}
		return answer(q, tcp)
	})
	s := newSite(t, o.use, func(c *Config) {
		c.Limits = Limits{Questions: 8, QuestionsPerPod: 4, Attempt: 10 * time.Second, Total: 20 * time.Second}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range 20 {
		q := packed(t, question(fmt.Sprintf("n%d.wild.example.com.", i), miekg.TypeA))
		wg.Go(func() { s.server.Answer(ctx, s.asker("slow"), q, false) })
	}
	for s.count(Failed) < 16 || len(o.questions()) < 4 {
		time.Sleep(time.Millisecond)
	}
	if got := short(s.ask("api.example.com.", miekg.TypeA)); got != "NOERROR; A 192.0.2.1" {
		t.Errorf("another pod: %s", got)
	}
}
