package runtime

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Filesystem is how full the disk is that holds the images.
type Filesystem struct {
	Path      string
	Capacity  int64 // bytes
	Available int64 // bytes, to whoever is not root
}

// Used returns how full the disk is, in percent, as kubelet rounds it.
func (f Filesystem) Used() int {
	if f.Capacity <= 0 {
		return 0
	}
	// In two steps: the product of a large disk and 100 still fits.
	return 100 - int(f.Available*100/f.Capacity)
}

// ImageLimits say when images are deleted, in kubelet's words.
// Source: kubernetes.io, Garbage Collection, "Container image lifecycle".
type ImageLimits struct {
	High   int           // percent of the disk from which on images are deleted; 100: never
	Low    int           // percent at which deleting ends
	MinAge time.Duration // an image that is younger stays
}

// DefaultImageLimits are kubelet's.
var DefaultImageLimits = ImageLimits{High: 85, Low: 80, MinAge: 2 * time.Minute}

// Exceeded reports whether a disk is so full that images are to be deleted.
func (l ImageLimits) Exceeded(disk Filesystem) bool { return l.High < 100 && disk.Used() >= l.High }

// A StoredImage is one that a machine holds, with what is known of its use.
type StoredImage struct {
	ImageInfo
	// Used is when a container that exists no more had it last; zero when none
	// has had it for as long as anybody remembers.
	Used time.Time
}

// since is when the image was last good for anything.
func (i StoredImage) since() time.Time {
	if i.Used.After(i.Created) {
		return i.Used
	}
	return i.Created
}

// Needed says which images must stay.
type Needed struct {
	Names map[string]bool // "docker.io/library/redis:7": what commits, pods and archives name
	IDs   map[string]bool // what containers run from, whatever it is called now
}

// covers reports whether an image must stay.
func (n Needed) covers(i ImageInfo) bool {
	return n.IDs[i.ID] || slices.ContainsFunc(i.Names, func(name string) bool { return n.Names[name] })
}

// Reclaim is what to do about a disk that holds images.
type Reclaim struct {
	// Goal is how many bytes must be available, 0 while there is nothing to do.
	Goal int64
	// Remove are the images that may go, the one that was not used for longest
	// first. Each is removed only while less than Goal is available: what one
	// frees is known afterwards, because images share layers.
	Remove []StoredImage
	// Kept counts the others, and Young those among them that nobody needs and
	// that are too young.
	Kept, Young int
}

// Missing is how many bytes have to be freed.
func (r Reclaim) Missing(disk Filesystem) int64 { return max(0, r.Goal-disk.Available) }

// Eligible is how many bytes the images that may go have, compressed.
func (r Reclaim) Eligible() int64 {
	var sum int64
	for _, i := range r.Remove {
		sum += i.Size
	}
	return sum
}

// PlanReclaim decides which images may be deleted, and until when. What is needed
// always stays.
func PlanReclaim(disk Filesystem, images []StoredImage, needed Needed, limits ImageLimits, now time.Time) Reclaim {
	var out Reclaim
	if disk.Capacity <= 0 || !limits.Exceeded(disk) {
		return out
	}
	out.Goal = disk.Capacity / 100 * int64(100-limits.Low)
	for _, i := range images {
		switch {
		case needed.covers(i.ImageInfo):
			out.Kept++
		case now.Sub(i.since()) < limits.MinAge:
			out.Kept++
			out.Young++
		default:
			out.Remove = append(out.Remove, i)
		}
	}
	slices.SortFunc(out.Remove, func(a, b StoredImage) int {
		return cmp.Or(a.since().Compare(b.since()), strings.Compare(a.ID, b.ID))
	})
	return out
}
