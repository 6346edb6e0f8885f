// Package kube is Kubernetes' own knowledge of its objects, and the only part
// of Shoal that imports k8s.io/kubernetes: which kinds exist and what they are
// called, how they are decoded, which defaults they get and what makes them
// invalid. The tables of "kubectl get" are in the sub-package table, the
// OpenAPI documents in the sub-package openapi.
//
// The 15,000 lines of rules behind this package are not a published library.
// Everything that has to be known to call them is here, so that a new version
// of Kubernetes is one change in one place.
//
// Kinds are registered group by group in one version each, not through the
// "install" packages, which would bring every beta along and cost memory in a
// daemon that is meant to be small. Shoal decodes a kind into one version only.
//
// All functions may be called concurrently.
package kube
