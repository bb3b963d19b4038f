#include "CNetlinkShims.h"
#include "session.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>

/* What came back: the attributes of the answer, or the kernel's errno and words. */
struct outcome {
	struct fm_module_answer *answer;
	int error;
	int done;
};

int fm_module_probe(void)
{
	struct session s;
	int rc = session_open(&s, FARMEM_GENL_NAME);

	if (rc == 0)
		nl_socket_free(s.socket);
	return rc;
}

static int take_answer(struct nl_msg *message, void *argument)
{
	struct outcome *outcome = argument;
	struct nlmsghdr *header = nlmsg_hdr(message);
	int length = genlmsg_attrlen(genlmsg_hdr(header), 0);

	if (length < 0 || length > FM_MODULE_ANSWER_MAX) {
		outcome->error = -EMSGSIZE;
		return NL_OK;
	}
	memcpy(outcome->answer->bytes, genlmsg_attrdata(genlmsg_hdr(header), 0), (size_t)length);
	outcome->answer->length = length;
	return NL_OK;
}

static int take_acknowledgment(struct nl_msg *message, void *argument)
{
	(void)message;
	((struct outcome *)argument)->done = 1;
	return NL_STOP;
}

/* The kernel's own errno, which libnl would translate, and the text that goes with it. */
static int take_error(struct sockaddr_nl *from, struct nlmsgerr *error, void *argument)
{
	struct outcome *outcome = argument;
	struct nlmsghdr *header = (struct nlmsghdr *)((char *)error - NLMSG_HDRLEN);
	int skip = (int)sizeof(*error);

	(void)from;
	outcome->error = error->error;
	outcome->done = 1;
	if (!(header->nlmsg_flags & NLM_F_ACK_TLVS))
		return NL_STOP;
	if (!(header->nlmsg_flags & NLM_F_CAPPED))
		skip += (int)error->msg.nlmsg_len - NLMSG_HDRLEN;
	int length = (int)header->nlmsg_len - NLMSG_HDRLEN - NLMSG_ALIGN(skip);
	if (length <= 0)
		return NL_STOP;
	struct nlattr *text =
		nla_find((struct nlattr *)((char *)error + NLMSG_ALIGN(skip)), length, NLMSGERR_ATTR_MSG);
	if (text)
		nla_strlcpy(outcome->answer->reason, text, FM_MODULE_REASON_MAX);
	return NL_STOP;
}

static struct nl_msg *make_message(int family, int command,
				   const struct fm_module_attribute *attributes, int count)
{
	struct nl_msg *message = nlmsg_alloc();

	if (!message)
		return NULL;
	if (!genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, NLM_F_ACK,
			 (uint8_t)command, FARMEM_GENL_VERSION))
		goto full;
	for (int i = 0; i < count; i++)
		if (nla_put(message, attributes[i].type, attributes[i].length,
			    attributes[i].data) < 0)
			goto full;
	return message;
full:
	nlmsg_free(message);
	return NULL;
}

int fm_module_ask(int command, const struct fm_module_attribute *attributes, int count,
		  struct fm_module_answer *answer)
{
	struct outcome outcome = {.answer = answer};
	struct session s;
	int on = 1, rc = session_open(&s, FARMEM_GENL_NAME);

	answer->length = 0;
	answer->reason[0] = 0;
	if (rc < 0)
		return rc;
	struct nl_msg *message = make_message(s.family, command, attributes, count);
	rc = message ? 0 : -NLE_NOMEM;
	if (rc == 0) {
		/* Without it the kernel sends no text: an errno alone is all an old one has. */
		(void)setsockopt(nl_socket_get_fd(s.socket), SOL_NETLINK, NETLINK_EXT_ACK, &on,
				 sizeof(on));
		nl_socket_modify_cb(s.socket, NL_CB_VALID, NL_CB_CUSTOM, take_answer, &outcome);
		nl_socket_modify_cb(s.socket, NL_CB_ACK, NL_CB_CUSTOM, take_acknowledgment,
				    &outcome);
		nl_socket_modify_err_cb(s.socket, NL_CB_CUSTOM, take_error, &outcome);
		rc = nl_send_auto(s.socket, message);
	}
	while (rc >= 0 && !outcome.done)
		rc = nl_recvmsgs_default(s.socket);
	nlmsg_free(message);
	nl_socket_free(s.socket);
	if (outcome.error)
		return outcome.error;
	return rc < 0 ? session_errno(rc) : 0;
}
