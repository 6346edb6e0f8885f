// Package api answers the Kubernetes API for reading: discovery, get, list,
// watch, tables, logs and OpenAPI, so that kubectl, k9s and informers work
// against any node. There is nothing to write to: a write is answered with the
// file and line in Git where the change belongs.
//
// The objects come as a whole state, a function that lists them all; [Server]
// compares it with what it showed last and derives resource versions and watch
// events from the difference. It does so only when somebody asks or watches. A
// resource version is a number of this process alone; a watch from one that
// this process did not hand out is answered 410 Gone, and clients list again.
package api
