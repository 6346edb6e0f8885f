// Package satellite is how the daemon keeps company with small processes that
// outlive it: the keeper of logs and the fencer. Such a process serves a Unix
// socket; a request is a line of JSON, and so is the reply. A lock beside the
// socket sees to it that only one process serves it at a time, so that any number
// may be started.
//
//	err := satellite.Serve(socket, ready, answer)         // in the process
//	err := satellite.Start(ctx, within, command, answers) // in the daemon, when nobody does
//	conn, err := satellite.Dial(socket, within)
//	err = conn.Ask(request, &reply)
//
// It imports little, because the processes are to stay small.
package satellite
