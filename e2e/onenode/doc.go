// Package onenode tests one machine end to end: the real program on a real
// containerd, iptables and Git, with manifests from the corpus, in namespaces of
// its own. It is built with the tag e2e; the environment variable SHOAL_E2E=full
// adds the long tests.
package onenode
