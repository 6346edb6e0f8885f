package gossip

import "time"

// oracle plays the consensus: whoever leads it, and who knows of that. It keeps
// the rules of raft with pre-vote and quorum check: one leader a term, elected by
// a majority that does not hear another one; a leader that was deposed believes
// in itself until it hears of it, or hears no majority for a second.
type oracle struct {
	term   uint64
	leader int // of the term
	known  []oracleVoter
	calm   time.Duration // nobody may be elected before
}

// oracleVoter is what a voter knows.
type oracleVoter struct {
	term     uint64
	leader   int
	follows  bool
	heard    time.Duration // when it last heard its leader
	majority time.Duration // when it last heard a majority, as a leader
	told     Authority     // what its core was told
}

// reaches reports whether two voters that are awake hear each other.
func (d *drill) reaches(i, j int) bool {
	return d.nodes[i].awake(d.now) && d.nodes[j].awake(d.now) && d.cut[[2]int{i, j}] == 0 && d.cut[[2]int{j, i}] == 0
}

// majority reports whether a voter hears most voters, itself included, that keep
// counts.
func (d *drill) majority(i int, keep func(j int) bool) bool {
	heard, all := 0, 0
	for j := range d.nodes {
		if !d.votes(j) {
			continue
		}
		all++
		if (i == j && d.nodes[i].awake(d.now) || i != j && d.reaches(i, j)) && keep(j) {
			heard++
		}
	}
	return 2*heard > all
}

func anyVoter(int) bool { return true }

// confirms reports whether a quorum would confirm now that a node leads.
func (d *drill) confirms(i int) bool {
	o := &d.oracle
	return o.term > 0 && o.leader == i && o.known[i].follows && o.known[i].leader == i && o.known[i].term == o.term && d.majority(i, anyVoter)
}

// elect lets the consensus do a step.
func (d *drill) elect() {
	o := &d.oracle
	for i := range d.nodes {
		if d.votes(i) && d.nodes[i].awake(d.now) {
			d.hear(i)
		}
	}
	if d.now >= o.calm {
		for _, i := range d.rng.Perm(len(d.nodes)) {
			if d.votes(i) && d.electable(i) {
				d.crown(i)
				break
			}
		}
	}
	for i, m := range d.nodes {
		v := &o.known[i]
		if !d.votes(i) || !m.awake(d.now) {
			continue
		}
		a := Authority{}
		if v.follows {
			a = Authority{Leader: d.nodes[v.leader].id, Quorate: true, Epoch: d.ledger.Epoch, Term: v.term}
		}
		v.told = a
		m.SetRaft(m.local(d.now), a)
	}
}

// hear lets a voter hear who leads, and the leader's log.
func (d *drill) hear(i int) {
	o := &d.oracle
	v := &o.known[i]
	for j := range d.nodes {
		other := o.known[j]
		if i == j || !d.votes(j) || !d.reaches(i, j) || d.loss > 0 && d.rng.Float64() < d.loss {
			continue
		}
		if other.term > v.term {
			*v = oracleVoter{term: other.term, told: v.told, heard: v.heard}
		}
		if other.follows && other.leader == j && other.term == v.term {
			v.follows, v.leader, v.heard = true, j, d.now
			if o.term == v.term && d.confirms(j) {
				d.catchUp(d.nodes[i])
			}
		}
	}
	if v.follows && v.leader == i {
		if d.majority(i, anyVoter) {
			v.majority, v.heard = d.now, d.now
			if d.confirms(i) {
				d.catchUp(d.nodes[i])
			}
		}
		if d.now-v.majority > time.Second {
			v.follows = false
		}
	} else if v.follows && d.now-v.heard > time.Second {
		v.follows = false
	}
}

// electable reports whether a majority would vote for a node.
func (d *drill) electable(i int) bool {
	free := func(j int) bool { v := d.oracle.known[j]; return !v.follows || d.now-v.heard > 500*time.Millisecond }
	return free(i) && d.majority(i, free)
}

// crown makes a node the leader of the next term. Whoever votes for it knows.
func (d *drill) crown(i int) {
	o := &d.oracle
	o.term++
	o.leader, o.calm = i, d.now+time.Duration(300+d.rng.IntN(700))*time.Millisecond
	for j := range d.nodes {
		if !d.votes(j) || i != j && !d.reaches(i, j) {
			continue
		}
		o.known[j] = oracleVoter{term: o.term, leader: i, follows: true, heard: d.now, majority: d.now, told: o.known[j].told}
	}
	d.catchUp(d.nodes[i])
	d.ghosts.elected[Authority{Leader: d.nodes[i].id, Quorate: true, Epoch: d.ledger.Epoch, Term: o.term}] = true
}
