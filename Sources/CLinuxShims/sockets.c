#include "CLinuxShims.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int close_with_error(int fd, int error)
{
	close(fd);
	errno = error;
	return -1;
}

static int unix_address(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(address->sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address->sun_path, path);
	return 0;
}

int fm_unix_connect(const char *path)
{
	struct sockaddr_un address;

	if (unix_address(path, &address) < 0)
		return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return close_with_error(fd, errno);
	return fd;
}

int fm_unix_listen(const char *path, int backlog, unsigned mode)
{
	struct sockaddr_un address;

	if (unix_address(path, &address) < 0)
		return -1;
	/* A stale socket is removed only when nobody answers on it. */
	int probe = fm_unix_connect(path);
	if (probe >= 0)
		return close_with_error(probe, EADDRINUSE);
	if (errno == ECONNREFUSED) {
		struct stat s;

		if (lstat(path, &s) == 0 && S_ISSOCK(s.st_mode))
			unlink(path);
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* The mode must hold from the first moment: bind under a strict umask. */
	mode_t old = umask(0777 & ~mode);
	int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
	int error = errno;
	umask(old);
	if (rc < 0)
		return close_with_error(fd, error);
	if (listen(fd, backlog) < 0)
		return close_with_error(fd, errno);
	return fd;
}

static struct addrinfo *resolve(const char *host, const char *port, int flags)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = flags | AI_NUMERICSERV };
	struct addrinfo *list = NULL;
	int rc = getaddrinfo(host, port, &hints, &list);

	if (rc == 0)
		return list;
	if (rc != EAI_SYSTEM)
		errno = rc == EAI_AGAIN ? EAGAIN : EADDRNOTAVAIL;
	return NULL;
}

int fm_resolve(const char *host, char *text, unsigned int size)
{
	struct addrinfo *list = resolve(host, "0", 0);

	if (!list)
		return -1;
	int rc = getnameinfo(list->ai_addr, list->ai_addrlen, text, size, NULL, 0, NI_NUMERICHOST);
	freeaddrinfo(list);
	if (rc != 0) {
		errno = EADDRNOTAVAIL;
		return -1;
	}
	return 0;
}

int fm_tcp_listen(const char *host, const char *port, int backlog)
{
	struct addrinfo *list = resolve(host, port, AI_PASSIVE);
	int one = 1, error = EADDRNOTAVAIL;

	for (struct addrinfo *a = list; a; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0) {
			error = errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, backlog) == 0) {
			freeaddrinfo(list);
			return fd;
		}
		error = errno;
		close(fd);
	}
	if (list) {
		freeaddrinfo(list);
		errno = error;
	}
	return -1;
}

static int connect_one(const struct addrinfo *a, int64_t timeout_ns)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error = 0;
	socklen_t length = sizeof(error);

	if (fd < 0)
		return -1;
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return close_with_error(fd, errno);
		int ready = fm_poll_one(fd, FM_POLL_OUT, timeout_ns);

		if (ready <= 0)
			return close_with_error(fd, ready ? errno : ETIMEDOUT);
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
			error = errno;
		if (error)
			return close_with_error(fd, error);
	}
	if (fm_set_nonblocking(fd, false) < 0)
		return close_with_error(fd, errno);
	return fd;
}

int fm_tcp_connect(const char *host, const char *port, int64_t timeout_ns)
{
	struct addrinfo *list = resolve(host, port, 0);
	int fd = -1;

	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = connect_one(a, timeout_ns);
	int error = errno;
	if (list)
		freeaddrinfo(list);
	errno = error;
	return fd;
}

int fm_tcp_local_port(int fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return -1;
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int fm_accept(int fd)
{
	int got;

	do
		got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	while (got < 0 && (errno == EINTR || errno == ECONNABORTED));
	return got;
}

int fm_tcp_nodelay(int fd)
{
	int one = 1;

	return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int fm_socket_pair(int fds[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
}

int fm_message_pair(int fds[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds);
}

bool fm_is_message_socket(int fd)
{
	int type = 0;
	socklen_t length = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

static int set_timeout(int fd, int option, uint64_t ns)
{
	struct timeval t = { .tv_sec = ns / 1000000000u, .tv_usec = ns % 1000000000u / 1000 };

	return setsockopt(fd, SOL_SOCKET, option, &t, sizeof(t));
}

int fm_socket_timeouts(int fd, uint64_t receive_ns, uint64_t send_ns)
{
	if (set_timeout(fd, SO_RCVTIMEO, receive_ns) < 0)
		return -1;
	return set_timeout(fd, SO_SNDTIMEO, send_ns);
}

int fm_unix_peer(int fd, struct fm_peer *peer)
{
	struct ucred c;
	socklen_t length = sizeof(c);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &length) < 0)
		return -1;
	*peer = (struct fm_peer){ .pid = c.pid, .uid = (int)c.uid, .gid = (int)c.gid };
	return 0;
}

enum { FDS_MAX = 8 };

ssize_t fm_send_with_fds(int fd, const void *data, size_t length, const int *fds, int fd_count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * FDS_MAX)] = { 0 };
	struct iovec vector = { (void *)data, length };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (fd_count > FDS_MAX) {
		errno = EINVAL;
		return -1;
	}
	if (fd_count > 0) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)fd_count);
	}
	ssize_t sent;
	do
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

ssize_t fm_receive_with_fds(int fd, void *data, size_t length, int *fds, int *fd_count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	struct iovec vector = { data, length };
	struct msghdr message = { .msg_iov = &vector,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int capacity = *fd_count, count = 0;
	ssize_t got;

	*fd_count = 0;
	do
		got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return got;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < n; i++) {
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (count < capacity)
				fds[count++] = one;
			else
				close(one);
		}
	}
	*fd_count = count;
	return got;
}

ssize_t fm_send_no_signal(int fd, const void *data, size_t length)
{
	return send(fd, data, length, MSG_NOSIGNAL);
}

ssize_t fm_sendv_no_signal(int fd, const struct iovec *vectors, size_t count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)vectors, .msg_iovlen = count };

	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

ssize_t fm_receive(int fd, void *data, size_t length, bool dont_wait)
{
	return recv(fd, data, length, dont_wait ? MSG_DONTWAIT : 0);
}

int fm_set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -1;
	return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int fm_dup_cloexec(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}
