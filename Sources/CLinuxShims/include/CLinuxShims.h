/*
 * GNU-only and Linux-only interfaces that Swift's Glibc module does not show.
 * Every wrapper returns what the call returns: -1 with errno set on failure.
 * No feature-test macro may appear in this header: it would clash with Glibc's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* --- events ------------------------------------------------------------- */

enum { FM_POLL_IN = 1, FM_POLL_OUT = 2, FM_POLL_HANGUP = 4 };

struct fm_poll_event {
	uint32_t events; /* FM_POLL_* */
	uint64_t token;
};

int fm_epoll_create(void);
int fm_epoll_add(int epoll, int fd, uint32_t events, uint64_t token);
int fm_epoll_modify(int epoll, int fd, uint32_t events, uint64_t token);
int fm_epoll_remove(int epoll, int fd);
/* Waits for at most capacity events; timeout in milliseconds, -1 for ever. */
int fm_epoll_wait(int epoll, struct fm_poll_event *events, int capacity, int timeout_ms);

int fm_eventfd(void); /* non-blocking, close-on-exec */
int fm_eventfd_signal(int fd);
int fm_eventfd_drain(int fd);
int fm_timerfd(void); /* CLOCK_MONOTONIC, non-blocking, close-on-exec */
int fm_timerfd_arm(int fd, uint64_t first_ns, uint64_t interval_ns); /* relative; 0, 0 disarms */
/* Blocks the signals for the calling thread and returns a signalfd for them. */
int fm_signalfd(const int *signals, int count);
int fm_signalfd_read(int fd); /* signal number, or -1 with EAGAIN */
int fm_signal_ignore(int signal);

/* Waits for one descriptor: 1 ready, 0 timed out, -1 error. EINTR is retried to the deadline. */
int fm_poll_one(int fd, uint32_t events, int64_t timeout_ns);

/* --- processes and threads ---------------------------------------------- */

int fm_gettid(void);
int fm_pidfd_open(int pid);
int fm_pidfd_send_signal(int pidfd, int signal);
int fm_thread_set_name(const char *name); /* calling thread, at most 15 bytes */
int fm_thread_set_nice(int nice); /* calling thread alone, not its process */
int fm_thread_timer_slack(uint64_t ns);	  /* calling thread */
int fm_nap(uint64_t ns);		  /* relative, may end early */
int fm_thread_set_cpu(int cpu);		  /* pins the calling thread */
int fm_set_io_flusher(void);		  /* PR_SET_IO_FLUSHER */
int fm_set_parent_death_signal(int signal);
int fm_mlockall_on_fault(void); /* current and future, on fault */
int fm_mlock_on_fault(void *address, size_t length);
int fm_close_range(unsigned first, unsigned last);
void fm_cpu_relax(void);

struct fm_spawn_fd {
	int parent_fd; /* as it is here */
	int child_fd;  /* as it is to be in the child */
};
/*
 * Starts path with argv and envp; the child keeps only 0-2 and the mapped descriptors. It starts with
 * an empty signal mask and default handlers, in its own session when new_session is set, and dies with
 * the parent's thread by death_signal when that is not 0. Returns the pid; *pidfd receives a pidfd.
 * Allocates nothing in the child. Fails with the child's errno when exec fails.
 */
int fm_spawn(const char *path, char *const argv[], char *const envp[],
	     const struct fm_spawn_fd *fds, int fd_count, bool new_session, int death_signal,
	     int *pidfd);
/* Waits for pid: 1 exited (status filled), 0 still running after the timeout, -1 error. */
int fm_wait(int pid, int pidfd, int64_t timeout_ns, int *status);
int fm_wait_exit_status(int status); /* exit code, or 128 + signal */

/* --- memory and files --------------------------------------------------- */

int fm_memfd(const char *name, bool sealable);
int fm_seal_size(int memfd); /* no shrinking, growing or further seals */
int fm_fallocate(int fd, uint64_t offset, uint64_t length);
int fm_punch_hole(int fd, uint64_t offset, uint64_t length);
int fm_populate_write(void *address, size_t length); /* MADV_POPULATE_WRITE */
int fm_flock(int fd, bool exclusive, bool block);
/*
 * SIGBUS on a mapped page whose file was cut short by another process puts a private zero page there
 * instead of ending this process. Who cut its own lease short loses that lease's pages and nothing else.
 */
int fm_survive_truncation(void);
int fm_open_direct(const char *path, bool write);
int64_t fm_random(void *buffer, size_t length); /* getrandom */
int fm_renameat_sync(int directory, const char *from, const char *to);

struct fm_filesystem_facts {
	uint64_t magic, block_bytes, blocks, blocks_available;
};
int fm_statfs(const char *path, struct fm_filesystem_facts *facts);
enum { FM_MAGIC_TMPFS = 0x01021994, FM_MAGIC_HUGETLBFS = 0x958458f6, FM_MAGIC_CGROUP2 = 0x63677270,
       FM_MAGIC_FUSE = 0x65735546 };

int fm_mount(const char *source, const char *target, const char *type, unsigned long flags,
	     const char *data);
int fm_umount(const char *target, bool detach);

/* process_madvise; advice as FM_ADVICE_*; returns bytes advised. */
enum fm_advice { FM_ADVICE_COLD, FM_ADVICE_PAGEOUT, FM_ADVICE_WILLNEED };
ssize_t fm_process_madvise(int pidfd, const struct iovec *ranges, size_t count,
			   enum fm_advice advice);
int fm_madvise(void *address, size_t length, enum fm_advice advice);

/*
 * Reads one byte of each page through /proc/PID/mem, which maps pages that wait in the swap cache
 * again. Returns the pages read before the first that could not be; -1 when that was the first.
 */
ssize_t fm_touch_pages(int mem, uint64_t address, size_t pages);

int fm_swapon(const char *path, int priority, bool discard_pages); /* priority < 0: default */
int fm_swapoff(const char *path);

/* --- sockets ------------------------------------------------------------ */

int fm_unix_listen(const char *path, int backlog, unsigned mode);
int fm_unix_connect(const char *path);
/* The first address of a host in numbers, with a zone where it needs one. */
int fm_resolve(const char *host, char *text, unsigned int size);
int fm_tcp_listen(const char *host, const char *port, int backlog);
int fm_tcp_connect(const char *host, const char *port, int64_t timeout_ns);
int fm_tcp_local_port(int fd);
int fm_accept(int fd); /* close-on-exec, blocking */
int fm_tcp_nodelay(int fd);
int fm_socket_pair(int fds[2]);
/* Keeps messages apart; non-blocking. */
int fm_message_pair(int fds[2]);
bool fm_is_message_socket(int fd);
int fm_socket_timeouts(int fd, uint64_t receive_ns, uint64_t send_ns);
struct fm_peer {
	int pid, uid, gid;
};
int fm_unix_peer(int fd, struct fm_peer *peer);
/* Sends length bytes and fd_count descriptors in one message. */
ssize_t fm_send_with_fds(int fd, const void *data, size_t length, const int *fds, int fd_count);
/* Receives; *fd_count in: capacity, out: received (close-on-exec). */
ssize_t fm_receive_with_fds(int fd, void *data, size_t length, int *fds, int *fd_count);
ssize_t fm_send_no_signal(int fd, const void *data, size_t length);
ssize_t fm_sendv_no_signal(int fd, const struct iovec *vectors, size_t count);
ssize_t fm_receive(int fd, void *data, size_t length, bool dont_wait);
int fm_set_nonblocking(int fd, bool on);
int fm_dup_cloexec(int fd);
