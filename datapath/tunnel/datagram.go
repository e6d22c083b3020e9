// SPDX-License-Identifier: Apache-2.0

package tunnel

// datagram gives the application a whole datagram. Usually it lies in one
// piece among what was received; one that does not is put together first, in
// memory that grows with what has arrived, not with what was announced.
func (s *stream) datagram(ev event) error {
	t := s.t
	if t.part == nil && !t.partLost && ev.more == 0 {
		return s.app.deliver(s, ev.data)
	}
	t.addPart(ev.data)
	if ev.more > 0 {
		return nil
	}
	defer t.dropPart()
	if t.partLost {
		if d, ok := s.app.(*packetSide); ok {
			d.p.counts.unreceived.Add(1)
		}
		return nil
	}
	return s.app.deliver(s, t.part.b[:t.partLen])
}

func (t *Tunnel) addPart(p []byte) {
	if t.partLost {
		return
	}
	need := t.partLen + len(p)
	if t.part == nil || need > len(t.part.b) {
		old := t.part
		if t.part = t.bufs.take(classFor(need)); t.part == nil {
			t.bufs.put(old)
			t.partLost = true
			return
		}
		if old != nil {
			copy(t.part.b, old.b[:t.partLen])
			t.bufs.put(old)
		}
	}
	t.partLen += copy(t.part.b[t.partLen:], p)
}

func (t *Tunnel) dropPart() {
	t.bufs.put(t.part)
	t.part, t.partLen, t.partLost = nil, 0, false
}
