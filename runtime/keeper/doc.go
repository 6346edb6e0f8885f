// Package keeper is the small process beside the daemon that outlives it.
//
// It holds the reading ends of the FIFOs into which containers write, so that
// no container ever blocks or dies because the daemon was restarted, and it
// writes their logs. It decides nothing: the daemon tells it what to hold,
// through a Unix socket, one JSON object a line in each direction. A keeper
// that was killed is started again and told everything again; the bytes that
// were written meanwhile wait in the FIFOs, which the containers' shims keep
// open.
//
// It imports nothing but the standard library and the log format: it must cost
// a few megabytes, and it must go on when everything else does not.
package keeper
