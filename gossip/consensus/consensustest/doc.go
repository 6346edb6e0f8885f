// Package consensustest has a disk that forgets, lies, fills up and breaks, for
// tests of the consensus and of whole daemons, and the suite that every disk
// passes.
package consensustest
