#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <string.h>
#include <unistd.h>

#include "CVerbsShims.h"

/* The library's own objects under our names; never anything else. */
#define CHANNEL(c) ((struct rdma_event_channel *)(c))
#define ID(i) ((struct rdma_cm_id *)(i))

fm_rdma_channel *fm_rdma_channel_open(void)
{
	struct rdma_event_channel *channel;
	int devices = 0, flags;
	struct ibv_device **list = ibv_get_device_list(&devices);

	/* Asked first: the connection manager says less, and says it on standard error. */
	if (list)
		ibv_free_device_list(list);
	if (!list || !devices) {
		errno = ENODEV;
		return NULL;
	}
	channel = rdma_create_event_channel();
	if (!channel)
		return NULL;
	flags = fcntl(channel->fd, F_GETFL);
	if (flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		rdma_destroy_event_channel(channel);
		return NULL;
	}
	return (fm_rdma_channel *)channel;
}

void fm_rdma_channel_close(fm_rdma_channel *channel)
{
	rdma_destroy_event_channel(CHANNEL(channel));
}

int fm_rdma_channel_fd(const fm_rdma_channel *channel)
{
	return ((const struct rdma_event_channel *)channel)->fd;
}

static uint32_t event_kind(enum rdma_cm_event_type type)
{
	switch (type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		return FM_RDMA_EVENT_ADDRESS_RESOLVED;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		return FM_RDMA_EVENT_ROUTE_RESOLVED;
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		return FM_RDMA_EVENT_CONNECT_REQUEST;
	case RDMA_CM_EVENT_ESTABLISHED:
		return FM_RDMA_EVENT_ESTABLISHED;
	case RDMA_CM_EVENT_REJECTED:
		return FM_RDMA_EVENT_REJECTED;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
		return FM_RDMA_EVENT_UNREACHABLE;
	case RDMA_CM_EVENT_DISCONNECTED:
		return FM_RDMA_EVENT_DISCONNECTED;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return FM_RDMA_EVENT_DEVICE_REMOVED;
	default:
		return FM_RDMA_EVENT_NONE;
	}
}

int fm_rdma_channel_next(fm_rdma_channel *channel, struct fm_rdma_event *event)
{
	struct rdma_cm_event *raw;
	struct rdma_cm_id *subject;

	if (rdma_get_cm_event(CHANNEL(channel), &raw))
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	memset(event, 0, offsetof(struct fm_rdma_event, private_data));
	event->kind = event_kind(raw->event);
	event->status = raw->status < 0 ? -raw->status : raw->status;
	subject = raw->id;
	if (raw->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
		event->id = (fm_rdma_id *)raw->id;
		subject = raw->listen_id;
	}
	event->context = (uint64_t)(uintptr_t)subject->context;
	switch (raw->event) {
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		/* The connection manager has turned the names round: these are ours to serve. */
		event->reads_in = raw->param.conn.responder_resources;
		/* fall through */
	case RDMA_CM_EVENT_ESTABLISHED:
	case RDMA_CM_EVENT_REJECTED:
		/* The length is a byte, so the data always fits. */
		event->private_length = raw->param.conn.private_data ? raw->param.conn.private_data_len : 0;
		if (event->private_length)
			memcpy(event->private_data, raw->param.conn.private_data, event->private_length);
		break;
	default:
		break;
	}
	rdma_ack_cm_event(raw);
	return 1;
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **found)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV };

	if (getaddrinfo(*host ? host : NULL, port, &hints, found)) {
		errno = EHOSTUNREACH;
		return -1;
	}
	return 0;
}

static struct rdma_cm_id *make(fm_rdma_channel *channel, uint64_t context)
{
	struct rdma_cm_id *id;

	if (rdma_create_id(CHANNEL(channel), &id, (void *)(uintptr_t)context, RDMA_PS_TCP))
		return NULL;
	return id;
}

fm_rdma_id *fm_rdma_listen(fm_rdma_channel *channel, const char *host, const char *port, int backlog, uint64_t context)
{
	struct addrinfo *found = NULL;
	struct rdma_cm_id *id;
	int code, yes = 1;

	if (resolve(host, port, AI_PASSIVE, &found))
		return NULL;
	id = make(channel, context);
	if (!id) {
		freeaddrinfo(found);
		return NULL;
	}
	/* A server that comes back must not wait for its predecessor's connections to be forgotten. */
	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &yes, sizeof(yes));
	code = rdma_bind_addr(id, found->ai_addr);
	freeaddrinfo(found);
	if (code || rdma_listen(id, backlog)) {
		code = errno;
		rdma_destroy_id(id);
		errno = code;
		return NULL;
	}
	return (fm_rdma_id *)id;
}

int fm_rdma_local_port(const fm_rdma_id *id)
{
	return ntohs(rdma_get_src_port((struct rdma_cm_id *)id));
}

fm_rdma_id *fm_rdma_make(fm_rdma_channel *channel, uint64_t context)
{
	return (fm_rdma_id *)make(channel, context);
}

void fm_rdma_set_context(fm_rdma_id *id, uint64_t context)
{
	ID(id)->context = (void *)(uintptr_t)context;
}

int fm_rdma_resolve_address(fm_rdma_id *id, const char *host, const char *port, int timeout_ms)
{
	struct addrinfo *found = NULL;
	int code, saved;

	if (resolve(host, port, 0, &found))
		return -1;
	code = rdma_resolve_addr(ID(id), NULL, found->ai_addr, timeout_ms);
	saved = errno;
	freeaddrinfo(found);
	errno = saved;
	return code ? -1 : 0;
}

int fm_rdma_resolve_route(fm_rdma_id *id, int timeout_ms)
{
	return rdma_resolve_route(ID(id), timeout_ms) ? -1 : 0;
}

int fm_rdma_set_ack_timeout(fm_rdma_id *id, uint8_t exponent)
{
	return rdma_set_option(ID(id), RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &exponent, sizeof(exponent)) ? -1 : 0;
}

static struct rdma_conn_param raw_parameters(const struct fm_rdma_parameters *parameters)
{
	return (struct rdma_conn_param){
		.private_data = parameters->private_data,
		.private_data_len = parameters->private_length,
		.responder_resources = parameters->reads_in,
		.initiator_depth = parameters->reads_out,
		.retry_count = parameters->retries,
		.rnr_retry_count = parameters->retries_ready,
	};
}

int fm_rdma_connect(fm_rdma_id *id, const struct fm_rdma_parameters *parameters)
{
	struct rdma_conn_param raw = raw_parameters(parameters);

	return rdma_connect(ID(id), &raw) ? -1 : 0;
}

int fm_rdma_accept(fm_rdma_id *id, const struct fm_rdma_parameters *parameters)
{
	struct rdma_conn_param raw = raw_parameters(parameters);

	return rdma_accept(ID(id), &raw) ? -1 : 0;
}

int fm_rdma_reject(fm_rdma_id *id, const void *private_data, uint8_t length)
{
	return rdma_reject(ID(id), private_data, length) ? -1 : 0;
}

int fm_rdma_disconnect(fm_rdma_id *id)
{
	return rdma_disconnect(ID(id)) ? -1 : 0;
}

void fm_rdma_destroy(fm_rdma_id *id)
{
	rdma_destroy_id(ID(id));
}

bool fm_rdma_same_device(const fm_rdma_id *a, const fm_rdma_id *b)
{
	const struct rdma_cm_id *first = (const struct rdma_cm_id *)a, *second = (const struct rdma_cm_id *)b;

	return first->verbs && first->verbs == second->verbs;
}
