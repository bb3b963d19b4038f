#include "session.h"

#include <errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

int session_errno(int nl)
{
	switch (nl < 0 ? -nl : nl) {
	case NLE_SUCCESS:
		return 0;
	case NLE_OBJ_NOTFOUND:
	case NLE_NODEV:
		return -ENOENT;
	case NLE_PERM:
		return -EPERM;
	case NLE_NOACCESS:
		return -EACCES;
	case NLE_BUSY:
		return -EBUSY;
	case NLE_INVAL:
		return -EINVAL;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_EXIST:
		return -EEXIST;
	case NLE_AGAIN:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

int session_open(struct session *s, const char *family)
{
	s->socket = nl_socket_alloc();
	if (!s->socket)
		return -ENOMEM;
	int rc = genl_connect(s->socket);
	if (rc == 0) {
		s->family = genl_ctrl_resolve(s->socket, family);
		rc = s->family < 0 ? s->family : 0;
	}
	if (rc < 0) {
		nl_socket_free(s->socket);
		return session_errno(rc);
	}
	return 0;
}
