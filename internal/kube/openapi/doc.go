// Package openapi makes the OpenAPI v3 documents that "kubectl explain" reads,
// from the definitions that Kubernetes generates for its own API server.
//
// A document is built when it is asked for and kept by nobody: explaining is
// rare, and the definitions take some 30 MB while they are in use.
package openapi
