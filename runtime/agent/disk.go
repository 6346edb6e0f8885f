package agent

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// How much work it may be to measure what a pod has on disk.
const (
	mostFiles     = 100_000 // of one volume; of larger ones a part is measured
	writtenWithin = 10 * time.Second
)

// disks is what was measured of the disks.
type disks struct {
	mu     sync.Mutex
	pods   map[string]PodDisk // by instance
	images string             // folder of the engine
}

// PodDisk is what a pod has on the disk of its machine.
type PodDisk struct {
	At         time.Time
	Containers map[string]ContainerDisk   // by name; all attempts together
	Volumes    map[string]runtime.DiskUse // by name; of emptyDirs that are not in memory
}

// ContainerDisk is what a container has on disk.
type ContainerDisk struct {
	Written runtime.DiskUse // into its own file system
	Logs    runtime.DiskUse
}

// Total is all that counts against the limits of the pod.
func (d PodDisk) Total() runtime.DiskUse {
	var out runtime.DiskUse
	for _, c := range d.Containers {
		out = out.Add(c.Written).Add(c.Logs)
	}
	for _, v := range d.Volumes {
		out = out.Add(v)
	}
	return out
}

// diskOf measures what a pod has on disk, unless that was done not long ago.
func (a *Agent) diskOf(ctx context.Context, instance string, r report, age time.Duration) PodDisk {
	a.disk.mu.Lock()
	known := a.disk.pods[instance]
	a.disk.mu.Unlock()
	if time.Since(known.At) < age {
		return known
	}
	out := PodDisk{At: time.Now(), Containers: map[string]ContainerDisk{}, Volumes: map[string]runtime.DiskUse{}}
	object := r.pod.Object
	logs := filepath.Join(a.logDir(), runtime.LogFolder(object.Namespace, object.Name, instance))
	for _, c := range r.held {
		d, known := out.Containers[c.Name]
		if !known { // of all its attempts
			d.Logs = folderSize(filepath.Join(logs, c.Name), mostFiles)
		}
		limited, cancel := context.WithTimeout(ctx, writtenWithin)
		if written, err := a.cfg.Engine.Written(limited, c.ID); err == nil { // it may be gone
			d.Written = d.Written.Add(written)
		}
		cancel()
		out.Containers[c.Name] = d
	}
	for i := range object.Spec.Volumes {
		v := &object.Spec.Volumes[i]
		if v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault {
			out.Volumes[v.Name] = folderSize(a.volumes.Path(instance, v), mostFiles)
		}
	}
	a.disk.mu.Lock()
	defer a.disk.mu.Unlock()
	if a.disk.pods == nil {
		a.disk.pods = map[string]PodDisk{}
	}
	a.disk.pods[instance] = out
	return out
}

// forgetDisks forgets pods that are gone.
func (a *Agent) forgetDisks(held map[string]report) {
	a.disk.mu.Lock()
	defer a.disk.mu.Unlock()
	for instance := range a.disk.pods {
		if _, known := held[instance]; !known {
			delete(a.disk.pods, instance)
		}
	}
}

// folderSize measures a folder and what is below it on the same disk, until it has
// seen so many files. What has several names counts once. What cannot be read
// counts nothing.
func folderSize(dir string, most int) runtime.DiskUse {
	var out runtime.DiskUse
	var own unix.Stat_t
	if unix.Lstat(dir, &own) != nil {
		return out
	}
	type file struct{ device, inode uint64 }
	seen := map[file]bool{}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error { // files come and go meanwhile
		if err != nil {
			return nil
		}
		if most--; most < 0 {
			return fs.SkipAll
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			return nil
		}
		if st.Dev != own.Dev {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !entry.IsDir() {
			id := file{st.Dev, st.Ino}
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		out = out.Add(runtime.DiskUse{Bytes: st.Blocks * 512, Inodes: 1})
		return nil
	})
	return out
}

// addDisk fills in what a pod uses of disks.
func (a *Agent) addDisk(ctx context.Context, r report, p *evict.Pod) {
	d := a.diskOf(ctx, p.Instance, r, pressureEvery)
	total := d.Total()
	p.Used.Inodes, p.Used.Disk = total.Inodes, total.Bytes
	for i := range p.Containers {
		c := d.Containers[p.Containers[i].Name]
		p.Containers[i].Disk = c.Written.Bytes + c.Logs.Bytes
	}
	for _, c := range d.Containers {
		p.Used.Layers += c.Written.Bytes
	}
}

// imageDir is where the engine has images; "" while it has not said.
func (a *Agent) imageDir() string {
	a.disk.mu.Lock()
	defer a.disk.mu.Unlock()
	if a.disk.images == "" {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		a.disk.images, _ = a.cfg.Engine.Folder(ctx) // it is asked again the next time
	}
	return a.disk.images
}

// dropOldLogs deletes the logs of attempts that are over and that another one has
// followed: nobody needs them to go on.
func (a *Agent) dropOldLogs() {
	for _, r := range a.known() {
		object := r.pod.Object
		for i, c := range r.held { // sorted by name, then attempt
			if c.State != runtime.ContainerExited || i+1 >= len(r.held) || r.held[i+1].Name != c.Name {
				continue
			}
			path := filepath.Join(a.logDir(), runtime.LogPath(object.Namespace, object.Name, string(object.UID), c.Name, c.Attempt))
			removeLogs(path)
		}
	}
}

// known are the reports of pods of which the spec is known, by instance.
func (a *Agent) known() map[string]report {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]report, len(a.reports))
	for instance, r := range a.reports {
		if r.known && r.pod.Object != nil {
			out[instance] = r
		}
	}
	return out
}
