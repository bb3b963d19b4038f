/* A generic netlink socket and the family that it speaks to: what the shims of this target share. */
#pragma once

struct nl_sock;

struct session {
	struct nl_sock *socket;
	int family;
};

/* 0, or -errno: -ENOENT when the kernel has no such family. The caller frees the socket. */
int session_open(struct session *s, const char *family);
/* libnl has its own error numbers; callers know errno only. 0 or negative. */
int session_errno(int nl);
