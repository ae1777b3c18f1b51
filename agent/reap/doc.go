// Package reap collects the orphans that PID 1 inherits, without taking an exit status away from its owner.
//
// Enters: the word that a child may have ended (SIGCHLD, or an owner who is done). Leaves: no zombies. libcontainer
// and os/exec wait for their own children by PID; wait4(-1) would steal those results. So the reaper only looks
// (waitid(2) with WNOWAIT) and collects a child only if nobody owns it. Must never happen here: a wait for a PID that
// an owner waits for, or a wait while a child is being started whose PID is not known yet.
package reap
