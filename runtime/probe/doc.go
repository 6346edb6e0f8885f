// Package probe asks containers whether they are alive, ready and started.
//
// A startup probe gates the other two. Until a container has been ready for the
// first time it is asked more often than its period, at growing intervals, so
// that a pod that is ready after a tenth of a second is used after a tenth of a
// second; those early failures count towards no threshold.
//
// What a probe said is remembered by the caller. A container that is adopted
// after a restart of the daemon begins with what was known of it, and changes
// only when a probe says otherwise.
//
// Source: kubernetes.io, "Liveness, Readiness, and Startup Probes".
package probe
