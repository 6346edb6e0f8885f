// Package logs is the daemon's side of container logs: it starts the keeper
// that writes them, tells it which containers to hold, and reads them back for
// kubectl logs.
//
// Every attempt of a container has its own file below the log folder, laid out
// as kubelet does (namespace_pod_uid/container/attempt.log), in the CRI format
// and rotated by size; see package cri.
package logs
