// SPDX-License-Identifier: Apache-2.0

package tunnel

// dialing bounds how many dials run at once, for one owner and for all. What
// becomes free goes to the owners that wait in turn, so that one that wants a
// thousand tunnels delays another by one dial and not by a thousand.
type dialing struct {
	total, perOwner int

	used   int
	owners map[string]*dialer // that dial or wait
	turn   []string           // owners with waiting keys; each once
	held   uint64             // dials that had to wait
}

type dialer struct {
	used    int
	waiting []Key // each once
	wants   map[Key]struct{}
}

func (d *dialing) of(owner string) *dialer {
	o := d.owners[owner]
	if o == nil {
		o = &dialer{wants: map[Key]struct{}{}}
		d.owners[owner] = o
	}
	return o
}

// take reports whether a dial for key may begin. If not, the key waits and
// next will return it.
func (d *dialing) take(key Key) bool {
	o := d.of(key.Owner)
	if d.used < d.total && o.used < d.perOwner && len(o.waiting) == 0 {
		d.used++
		o.used++
		return true
	}
	if _, already := o.wants[key]; already {
		return false
	}
	if len(o.waiting) == 0 {
		d.turn = append(d.turn, key.Owner)
	}
	o.waiting = append(o.waiting, key)
	o.wants[key] = struct{}{}
	d.held++
	return false
}

// give takes back what take or next gave.
func (d *dialing) give(owner string) {
	o := d.owners[owner]
	d.used--
	o.used--
	d.tidy(owner, o)
}

// next gives the key whose turn it is, with the right to dial once.
func (d *dialing) next() (Key, bool) {
	if d.used >= d.total {
		return Key{}, false
	}
	for i, owner := range d.turn {
		o := d.owners[owner]
		if o.used >= d.perOwner {
			continue
		}
		key := o.waiting[0]
		o.waiting = o.waiting[1:]
		delete(o.wants, key)
		d.turn = append(d.turn[:i], d.turn[i+1:]...)
		if len(o.waiting) > 0 {
			d.turn = append(d.turn, owner)
		}
		d.used++
		o.used++
		return key, true
	}
	return Key{}, false
}

func (d *dialing) waits(key Key) bool {
	o := d.owners[key.Owner]
	if o == nil {
		return false
	}
	_, waits := o.wants[key]
	return waits
}

func (d *dialing) waiting() (n int) {
	for _, owner := range d.turn {
		n += len(d.owners[owner].waiting)
	}
	return n
}

func (d *dialing) tidy(owner string, o *dialer) {
	if o.used == 0 && len(o.waiting) == 0 {
		delete(d.owners, owner)
	}
}
