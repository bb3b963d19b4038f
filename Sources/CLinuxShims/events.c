#include "CLinuxShims.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static uint32_t to_epoll(uint32_t events)
{
	return (events & FM_POLL_IN ? EPOLLIN : 0) | (events & FM_POLL_OUT ? EPOLLOUT : 0) |
	       EPOLLRDHUP;
}

int fm_epoll_create(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

int fm_epoll_add(int epoll, int fd, uint32_t events, uint64_t token)
{
	struct epoll_event event = { .events = to_epoll(events), .data.u64 = token };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int fm_epoll_modify(int epoll, int fd, uint32_t events, uint64_t token)
{
	struct epoll_event event = { .events = to_epoll(events), .data.u64 = token };

	return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

int fm_epoll_remove(int epoll, int fd)
{
	return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

int fm_epoll_wait(int epoll, struct fm_poll_event *events, int capacity, int timeout_ms)
{
	struct epoll_event raw[64];
	int count = epoll_wait(epoll, raw, capacity < 64 ? capacity : 64, timeout_ms);

	for (int i = 0; i < count; i++) {
		uint32_t e = raw[i].events;

		events[i].token = raw[i].data.u64;
		events[i].events = (e & EPOLLIN ? FM_POLL_IN : 0) |
				   (e & EPOLLOUT ? FM_POLL_OUT : 0) |
				   (e & (EPOLLHUP | EPOLLERR | EPOLLRDHUP) ? FM_POLL_HANGUP : 0);
	}
	return count;
}

int fm_eventfd(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

int fm_eventfd_signal(int fd)
{
	return eventfd_write(fd, 1);
}

int fm_eventfd_drain(int fd)
{
	eventfd_t value;

	return eventfd_read(fd, &value);
}

int fm_timerfd(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u };
}

int fm_timerfd_arm(int fd, uint64_t first_ns, uint64_t interval_ns)
{
	struct itimerspec spec = { .it_value = to_timespec(first_ns),
				   .it_interval = to_timespec(interval_ns) };

	return timerfd_settime(fd, 0, &spec, NULL);
}

int fm_signalfd(const int *signals, int count)
{
	sigset_t set;

	sigemptyset(&set);
	for (int i = 0; i < count; i++)
		sigaddset(&set, signals[i]);
	int rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (rc) {
		errno = rc;
		return -1;
	}
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int fm_signalfd_read(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : -1;
}

int fm_signal_ignore(int signal_number)
{
	return signal(signal_number, SIG_IGN) == SIG_ERR ? -1 : 0;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int fm_poll_one(int fd, uint32_t events, int64_t timeout_ns)
{
	struct pollfd p = { .fd = fd,
			    .events = (events & FM_POLL_IN ? POLLIN : 0) |
				      (events & FM_POLL_OUT ? POLLOUT : 0) };
	int64_t deadline = now_ns() + timeout_ns;

	for (;;) {
		int64_t left = timeout_ns < 0 ? 0 : deadline - now_ns();
		struct timespec wait = to_timespec(left < 0 ? 0 : (uint64_t)left);
		int rc = ppoll(&p, 1, timeout_ns < 0 ? NULL : &wait, NULL);

		if (rc >= 0 || errno != EINTR)
			return rc;
	}
}
