#include "CLinuxShims.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

int fm_gettid(void)
{
	return (int)syscall(SYS_gettid);
}

int fm_pidfd_open(int pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int fm_pidfd_send_signal(int pidfd, int signal_number)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0);
}

int fm_thread_set_name(const char *name)
{
	return prctl(PR_SET_NAME, name, 0, 0, 0);
}

int fm_thread_set_nice(int nice)
{
	return setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice);
}

int fm_thread_timer_slack(uint64_t ns)
{
	return prctl(PR_SET_TIMERSLACK, ns, 0, 0, 0);
}

int fm_nap(uint64_t ns)
{
	struct timespec t = { .tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u };

	return nanosleep(&t, NULL);
}

int fm_thread_set_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

int fm_set_io_flusher(void)
{
	return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

int fm_set_parent_death_signal(int signal_number)
{
	return prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0);
}

int fm_mlockall_on_fault(void)
{
	return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

int fm_mlock_on_fault(void *address, size_t length)
{
	return (int)syscall(SYS_mlock2, address, length, MLOCK_ONFAULT);
}

int fm_close_range(unsigned first, unsigned last)
{
	return (int)syscall(SYS_close_range, first, last, 0);
}

void fm_cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

enum { SPAWN_FDS_MAX = 32 };

/* Runs in the child: only async-signal-safe calls from here to exec. */
static void child(const char *path, char *const argv[], char *const envp[],
		  const struct fm_spawn_fd *fds, int fd_count, bool new_session, int death_signal,
		  int report)
{
	int moved[SPAWN_FDS_MAX], top = 2;
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (new_session)
		setsid();
	if (death_signal)
		prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0);

	for (int i = 0; i < fd_count; i++)
		if (fds[i].child_fd > top)
			top = fds[i].child_fd;
	/* Move all sources above the targets first, so that no target overwrites a source. */
	report = fcntl(report, F_DUPFD_CLOEXEC, top + 1);
	for (int i = 0; i < fd_count; i++) {
		moved[i] = fcntl(fds[i].parent_fd, F_DUPFD_CLOEXEC, top + 1);
		if (moved[i] < 0)
			goto fail;
	}
	for (int i = 0; i < fd_count; i++)
		if (dup2(moved[i], fds[i].child_fd) < 0)
			goto fail;
	for (int fd = 3; fd <= top; fd++) {
		bool wanted = false;

		for (int i = 0; i < fd_count; i++)
			wanted |= fds[i].child_fd == fd;
		if (!wanted)
			close(fd);
	}
	for (int i = 0; i < fd_count; i++)
		close(moved[i]);
	if (report > top + 1)
		fm_close_range((unsigned)top + 1, (unsigned)report - 1);
	fm_close_range((unsigned)report + 1, ~0u);
	execve(path, argv, envp);
fail:;
	int error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

int fm_spawn(const char *path, char *const argv[], char *const envp[],
	     const struct fm_spawn_fd *fds, int fd_count, bool new_session, int death_signal,
	     int *pidfd)
{
	int pipe_fds[2], error = 0;

	if (fd_count > SPAWN_FDS_MAX) {
		errno = E2BIG;
		return -1;
	}
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0)
		child(path, argv, envp, fds, fd_count, new_session, death_signal, pipe_fds[1]);
	int fork_error = errno;
	close(pipe_fds[1]);
	if (pid < 0) {
		close(pipe_fds[0]);
		errno = fork_error;
		return -1;
	}
	ssize_t got;
	do
		got = read(pipe_fds[0], &error, sizeof(error));
	while (got < 0 && errno == EINTR);
	close(pipe_fds[0]);
	if (got > 0) {
		waitpid(pid, NULL, 0);
		errno = error;
		return -1;
	}
	if (pidfd)
		*pidfd = fm_pidfd_open(pid);
	return pid;
}

int fm_wait(int pid, int pidfd, int64_t timeout_ns, int *status)
{
	int ready = pidfd >= 0 ? fm_poll_one(pidfd, FM_POLL_IN, timeout_ns) : 1;

	if (ready <= 0)
		return ready;
	for (;;) {
		pid_t got = waitpid(pid, status, 0);

		if (got == pid)
			return 1;
		if (errno != EINTR)
			return -1;
	}
}

int fm_wait_exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
