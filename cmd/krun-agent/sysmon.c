// The Go runtime's monitor thread (sysmon) wakes every 20 microseconds while the agent has work, 50 times before it
// slows down. Each is a timer interrupt of the guest and several exits of the VM: a fifth of all that a guest computed
// on an emulated node. So that thread gets a timer slack (prctl(2), PR_SET_TIMERSLACK) as long as the longest it ever
// sleeps, 10 ms, with which its wake-ups fall on those of others. The thread inherits it from the first one, which
// goes back to the usual slack where Go code begins (agent/ctr/reexec).
#include <sys/prctl.h>

__attribute__((constructor)) static void krun_sysmon_slack(void)
{
	prctl(PR_SET_TIMERSLACK, 10UL * 1000 * 1000, 0, 0, 0);
}
