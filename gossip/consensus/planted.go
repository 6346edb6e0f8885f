package consensus

// Planted is a mistake that a test plants, to see that it is found. In the
// product it is always PlantedNothing: only a test can set another one.
type Planted int

// The mistakes.
const (
	PlantedNothing        Planted = iota
	PlantedNoSync                 // writes are acknowledged before they are durable
	PlantedForgetVote             // a vote is not written
	PlantedSendFirst              // messages leave before what they promise is written
	PlantedEarlyAnswer            // a command is acknowledged when it is proposed
	PlantedIgnoreDamage           // a log that lost its end is read as if it ended there
	PlantedStaleRead              // leadership is confirmed without asking anybody
	PlantedNodeLedger             // the ledger depends on the node that applies a command
	PlantedShrinkingClaim         // a claim that moves gets a number that is too low
	PlantedCutTooMuch             // with the old entries, those after the snapshot are cut off
	PlantedAnyLineage             // messages of another recovery are obeyed
	PlantedBlindClaim             // a claim is granted though another one came before it
)
