// Package runtimetest holds what every container engine must do, as a suite of
// tests, and an engine in memory that does it: the engine on containerd and
// this one pass the same suite.
//
// The engine in memory runs no programs. It understands the few commands that
// the suite uses: sleep, "exit N", "trap 'exit N' TERM", echo.
package runtimetest
