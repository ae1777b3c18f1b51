// Package stdio joins a process's standard input, output and error to streams.
//
// Enters: the stream URIs of a Task request, or nothing. Leaves: files for the process, and every byte in order, with
// the end of the stream sent before the process counts as drained. A stream that nobody reads holds up its own
// writer only. Must never happen here: an exit that is never reported because something else keeps a pipe open.
package stdio
