// Package usage reads what a machine and its pods consume: processor time and
// memory, from /proc and from cgroups of both versions.
package usage
