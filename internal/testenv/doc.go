// Package testenv makes the surroundings that tests on real things need: a
// private containerd, images built on the spot, a registry on loopback, and
// namespaces in which all of that leaves no trace.
//
// A package whose tests touch the machine calls [Main] from its TestMain. Its
// tests then run in network, mount and PID namespaces of their own, as root:
// whatever they start and mount ends with them, also when they panic or are
// killed.
package testenv
