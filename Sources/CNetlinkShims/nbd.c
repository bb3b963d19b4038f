#include "CNetlinkShims.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int fm_nbd_probe(void)
{
	struct session s;
	int rc = session_open(&s, NBD_GENL_FAMILY_NAME);

	if (rc == 0)
		nl_socket_free(s.socket);
	return rc;
}

static int take_index(struct nl_msg *message, void *argument)
{
	struct nlattr *attributes[NBD_ATTR_MAX + 1];
	int *index = argument;

	if (genlmsg_parse(nlmsg_hdr(message), 0, attributes, NBD_ATTR_MAX, NULL) == 0 &&
	    attributes[NBD_ATTR_INDEX])
		*index = (int)nla_get_u32(attributes[NBD_ATTR_INDEX]);
	return NL_OK;
}

static int put_sockets(struct nl_msg *message, const int *sockets, int count)
{
	struct nlattr *list = nla_nest_start(message, NBD_ATTR_SOCKETS);

	if (!list)
		return -NLE_NOMEM;
	for (int i = 0; i < count; i++) {
		struct nlattr *item = nla_nest_start(message, NBD_SOCK_ITEM);

		if (!item || nla_put_u32(message, NBD_SOCK_FD, (uint32_t)sockets[i]) < 0)
			return -NLE_NOMEM;
		nla_nest_end(message, item);
	}
	nla_nest_end(message, list);
	return 0;
}

static int put_setup(struct nl_msg *message, const struct fm_nbd_setup *setup)
{
	if (nla_put_u64(message, NBD_ATTR_SIZE_BYTES, setup->size_bytes) < 0 ||
	    nla_put_u64(message, NBD_ATTR_BLOCK_SIZE_BYTES, setup->block_bytes) < 0 ||
	    nla_put_u64(message, NBD_ATTR_TIMEOUT, setup->timeout_seconds) < 0 ||
	    nla_put_u64(message, NBD_ATTR_DEAD_CONN_TIMEOUT, setup->dead_timeout_seconds) < 0 ||
	    nla_put_u64(message, NBD_ATTR_SERVER_FLAGS, setup->server_flags) < 0)
		return -NLE_NOMEM;
	if (setup->identifier &&
	    nla_put_string(message, NBD_ATTR_BACKEND_IDENTIFIER, setup->identifier) < 0)
		return -NLE_NOMEM;
	return 0;
}

/* One request: index < 0 lets the kernel choose; sockets and setup are left out when NULL. */
static int request(int command, int index, const struct fm_nbd_setup *setup, const int *sockets,
		   int count, int *answer)
{
	struct session s;
	int rc = session_open(&s, NBD_GENL_FAMILY_NAME);

	if (rc < 0)
		return rc;
	struct nl_msg *message = nlmsg_alloc();
	rc = message && genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, s.family, 0, 0,
				    (uint8_t)command, 0)
		     ? 0
		     : -NLE_NOMEM;
	if (rc == 0 && index >= 0)
		rc = nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t)index);
	if (rc == 0 && setup)
		rc = put_setup(message, setup);
	if (rc == 0 && sockets)
		rc = put_sockets(message, sockets, count);
	if (rc == 0 && answer)
		rc = nl_socket_modify_cb(s.socket, NL_CB_VALID, NL_CB_CUSTOM, take_index, answer);
	if (rc == 0) {
		/* Sends, takes the answer if there is one, and the acknowledgement. */
		rc = nl_send_auto(s.socket, message);
		if (rc >= 0 && answer)
			rc = nl_recvmsgs_default(s.socket);
		if (rc >= 0)
			rc = nl_wait_for_ack(s.socket);
	}
	nlmsg_free(message);
	nl_socket_free(s.socket);
	return rc < 0 ? session_errno(rc) : 0;
}

int fm_nbd_connect(const struct fm_nbd_setup *setup, const int *sockets, int count)
{
	int index = -EIO;
	int rc = request(NBD_CMD_CONNECT, -1, setup, sockets, count, &index);

	return rc < 0 ? rc : index;
}

int fm_nbd_reconfigure(int index, const struct fm_nbd_setup *setup, const int *sockets, int count)
{
	return request(NBD_CMD_RECONFIGURE, index, setup, sockets, count, NULL);
}

int fm_nbd_disconnect(int index)
{
	return request(NBD_CMD_DISCONNECT, index, NULL, NULL, 0, NULL);
}

static int take_status(struct nl_msg *message, void *argument)
{
	struct nlattr *attributes[NBD_ATTR_MAX + 1], *item[NBD_DEVICE_ATTR_MAX + 1], *one;
	int *connected = argument, left;

	if (genlmsg_parse(nlmsg_hdr(message), 0, attributes, NBD_ATTR_MAX, NULL) < 0 ||
	    !attributes[NBD_ATTR_DEVICE_LIST])
		return NL_OK;
	nla_for_each_nested (one, attributes[NBD_ATTR_DEVICE_LIST], left) {
		if (nla_parse_nested(item, NBD_DEVICE_ATTR_MAX, one, NULL) == 0 &&
		    item[NBD_DEVICE_CONNECTED])
			*connected = nla_get_u8(item[NBD_DEVICE_CONNECTED]);
	}
	return NL_OK;
}

int fm_nbd_is_connected(int index)
{
	struct session s;
	int connected = 0, rc = session_open(&s, NBD_GENL_FAMILY_NAME);

	if (rc < 0)
		return rc;
	struct nl_msg *message = nlmsg_alloc();
	rc = message && genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, s.family, 0, 0,
				    NBD_CMD_STATUS, 0)
		     ? nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t)index)
		     : -NLE_NOMEM;
	if (rc == 0)
		rc = nl_socket_modify_cb(s.socket, NL_CB_VALID, NL_CB_CUSTOM, take_status,
					 &connected);
	if (rc == 0)
		rc = nl_send_auto(s.socket, message);
	if (rc >= 0)
		rc = nl_recvmsgs_default(s.socket);
	nlmsg_free(message);
	nl_socket_free(s.socket);
	return rc < 0 ? session_errno(rc) : connected;
}

int fm_nbd_monitor_open(void)
{
	struct session s;
	int rc = session_open(&s, NBD_GENL_FAMILY_NAME);

	if (rc < 0)
		return rc;
	int group = genl_ctrl_resolve_grp(s.socket, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
	rc = group < 0 ? group : nl_socket_add_membership(s.socket, group);
	int fd = rc < 0 ? session_errno(rc) : fcntl(nl_socket_get_fd(s.socket), F_DUPFD_CLOEXEC, 3);
	if (rc >= 0 && fd < 0)
		fd = -errno;
	nl_socket_free(s.socket);
	return fd;
}

int fm_nbd_monitor_next(int monitor)
{
	_Alignas(struct nlmsghdr) char buffer[4096];
	ssize_t got = recv(monitor, buffer, sizeof(buffer), MSG_DONTWAIT);

	if (got < 0)
		return -errno;
	int length = (int)got;
	for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; nlmsg_ok(header, length);
	     header = nlmsg_next(header, &length)) {
		struct nlattr *attributes[NBD_ATTR_MAX + 1];

		if (!genlmsg_valid_hdr(header, 0))
			continue;
		struct genlmsghdr *generic = nlmsg_data(header);
		if (generic->cmd == NBD_CMD_LINK_DEAD &&
		    genlmsg_parse(header, 0, attributes, NBD_ATTR_MAX, NULL) == 0 &&
		    attributes[NBD_ATTR_INDEX])
			return (int)nla_get_u32(attributes[NBD_ATTR_INDEX]);
	}
	return -EAGAIN;
}
