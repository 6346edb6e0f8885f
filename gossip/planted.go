package gossip

// Planted is a mistake that a test plants, to see that it is found. In the
// product it is always PlantedNothing: only a test can set another one.
type Planted int

// The mistakes.
const (
	PlantedNothing           Planted = iota
	PlantedUnverifiedLease           // a lease is granted before a quorum has confirmed the leader
	PlantedHastyRelease              // a new leader does not wait for renewals that it knows nothing of
	PlantedForgottenHandover         // claims are released while a long lease runs
	PlantedUnnotedHandover           // a long lease is granted that the next leader knows nothing of
	PlantedForeignBoot               // a lease counts though it is of before the machine's start
	PlantedActingRelease             // a leader without a quorum releases claims
	PlantedOlderRecord               // of two records the one that came last is kept
	PlantedUnsignedRecord            // anybody may write anybody's record
	PlantedUnsignedRelay             // a relay may say anything in another's name
	PlantedHastyLoss                 // a node that is suspect is lost
	PlantedNoSecondLook              // a leader does not doubt its own connection
	PlantedNoDamping                 // a node may come and go as often as it likes
	PlantedStubbornLeader            // an acting leader stays when a better one is there
	PlantedObeyDeposed               // a leader that was deposed is obeyed
	PlantedUninformed                // a lease is granted to a node that does not know what was taken from it
)
