package api

import "time"

// UnitStatus is what a node knows of one sync unit: how far it follows Git and
// what keeps it from going on.
type UnitStatus struct {
	Unit     string     `json:"unit"`
	URL      string     `json:"url"` // without credentials
	Ref      string     `json:"ref"` // branch or tag that is followed
	Path     string     `json:"path,omitempty"`
	Accepted CommitInfo `json:"accepted"` // in force; zero before the first accepted commit
	Tip      CommitInfo `json:"tip"`      // the newest one seen; differs from Accepted while it is being judged or after it was refused
	Problems []Invalid  `json:"problems,omitempty"`
	Error    string     `json:"error,omitempty"` // why the repository cannot be read now; "" when it can
	Checked  time.Time  `json:"checked"`         // last time the repository answered
	InForce  time.Time  `json:"inForce"`         // when Accepted was accepted here
}

// CommitInfo describes a commit to a person.
type CommitInfo struct {
	Commit  Commit    `json:"commit"`
	Author  string    `json:"author,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Time    time.Time `json:"time"`
}
