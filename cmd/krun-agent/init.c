// The process that holds namespaces of a pod (agent/podns), as the first of its PID namespace: it collects orphans and
// does nothing else. In C, and before the Go runtime starts, so that it costs a few pages instead of a few MiB for each
// pod.
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((constructor)) static void krun_podns_init(int argc, char **argv)
{
	sigset_t set;
	int fd;

	if (argc != 1 || strcmp(argv[0], "krun-podns") != 0)
		return;
	// No container may look through /proc/1 (root, exe, fd) of the namespace at the guest outside.
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		_exit(1);
	for (fd = 0; fd < 3; fd++)
		close(fd);
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	for (;;) {
		int sig;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		sigemptyset(&set);
		sigaddset(&set, SIGCHLD);
		sigwait(&set, &sig);
	}
}
