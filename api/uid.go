package api

import (
	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
)

// UID returns the UID of an object: a UUID made from the fleet and the object's
// name, so that every node gives the same object the same UID without asking
// anybody.
func UID(fleet string, key Key) types.UID {
	name := fleet + "/" + key.Group + "/" + key.Kind + "/" + key.Namespace + "/" + key.Name
	return types.UID(uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)).String())
}
