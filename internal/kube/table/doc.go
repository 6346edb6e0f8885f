// Package table prints objects the way "kubectl get" does: with Kubernetes' own
// columns, computed by Kubernetes' own printers.
package table
