// Package volume makes the volumes of pods and keeps them current.
//
// Every volume of a pod is a folder below the state directory, at
// pods/<instance>/volumes/<name>; hostPath volumes stay where they are. What
// holds secrets is a tmpfs and never touches a disk. Volumes made from
// ConfigMaps, Secrets and the downward API are swapped as a whole: a new folder
// is written beside the old one, and the symbolic link ..data is renamed onto
// it, so that no reader ever sees half of a change.
//
// A persistent volume is a folder at volumes/<namespace>/<claim>-<epoch>-<index>,
// with the number under which the ledger bound the claim: what an earlier claim of
// the same name left is never taken for it. The pod's folder holds a link to it,
// and no mount: nothing that is done to the pod can reach the data. It is deleted
// by name alone.
//
// Containers write into volumes, so every path inside one is hostile: files
// are written below an os.Root, and a subPath is opened beneath its volume by
// the kernel and bound by its descriptor, so that no symbolic link leads out.
package volume
