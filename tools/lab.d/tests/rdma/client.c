#include <errno.h>
#include <gnutls/crypto.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include <rdma/rdma_verbs.h>

const char *host, *port, *key_name, *key_hex;

void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "\n");
	exit(1);
}

int try_connect(struct queue *queue, const void *private_data, size_t length)
{
	struct rdma_addrinfo hints = { .ai_port_space = RDMA_PS_TCP }, *found;
	struct rdma_conn_param parameters = {
		.private_data = private_data,
		.private_data_len = length,
		.initiator_depth = 16,
		.retry_count = 6, /* Soft-RoCE takes 7 as for ever */
		.rnr_retry_count = 6,
	};
	struct ibv_qp_init_attr attributes = {
		.cap = { .max_send_wr = 64, .max_recv_wr = 64, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
	};
	const void *answer = NULL;
	size_t bytes = 0;
	uint8_t ack_timeout = 14; /* 67 ms, where devices would wait for seconds */
	int code;

	memset(queue, 0, sizeof(*queue));
	if (rdma_getaddrinfo(host, port, &hints, &found))
		die("no address for %s", host);
	if (rdma_create_id(NULL, &queue->id, NULL, RDMA_PS_TCP) ||
	    rdma_resolve_addr(queue->id, NULL, found->ai_dst_addr, 2000) || rdma_resolve_route(queue->id, 2000)) {
		if (queue->id)
			rdma_destroy_id(queue->id);
		return -1;
	}
	rdma_freeaddrinfo(found);
	rdma_set_option(queue->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout, sizeof(ack_timeout));
	if (rdma_create_qp(queue->id, NULL, &attributes))
		die("rdma_create_qp: %s", strerror(errno));
	queue->pd = queue->id->pd;
	code = rdma_connect(queue->id, &parameters);
	if (queue->id->event && queue->id->event->param.conn.private_data) {
		answer = queue->id->event->param.conn.private_data;
		bytes = queue->id->event->param.conn.private_data_len;
		memcpy(queue->private_data, answer, bytes);
	}
	if (!code)
		return 0;
	queue->rejected = queue->id->event && queue->id->event->event == RDMA_CM_EVENT_REJECTED;
	code = queue->rejected ? 1 : -1;
	rdma_destroy_ep(queue->id);
	return code;
}

void drop(struct queue *queue)
{
	rdma_disconnect(queue->id);
	rdma_destroy_ep(queue->id);
}

/* Waits for a completion; 0, or -1 when it did not come: the only event that an established connection can have is its end. */
static int complete(struct rdma_cm_id *id, struct ibv_cq *cq, struct ibv_wc *wc, int seconds)
{
	time_t end = time(NULL) + seconds;
	struct pollfd events = { .fd = id->channel->fd, .events = POLLIN };

	while (time(NULL) <= end) {
		int over = poll(&events, 1, 1), got = ibv_poll_cq(cq, 1, wc);

		if (got)
			return got > 0 ? 0 : -1;
		if (over > 0)
			return -1;
	}
	return -1;
}

int ask_raw(struct session *session, const void *frame, size_t length, void *payload, size_t room)
{
	struct rdma_cm_id *id = session->control.id;
	struct fm_frame_header header;
	struct ibv_wc wc;

	memcpy(session->buffer[0], frame, length);
	if (rdma_post_recv(id, NULL, session->buffer[1], sizeof(session->buffer[1]), session->mr) ||
	    rdma_post_send(id, NULL, session->buffer[0], length, session->mr, 0))
		return 0;
	if (complete(id, id->send_cq, &wc, 5) || wc.status)
		return 0;
	if (complete(id, id->recv_cq, &wc, 15) || wc.status)
		return 0;
	memcpy(&header, session->buffer[1], sizeof(header));
	if (wc.byte_len < sizeof(header) || header.magic != FM_WIRE_MAGIC || header.version != FM_WIRE_VERSION ||
	    header.length != wc.byte_len - sizeof(header))
		die("an answer that is no frame: %u bytes", wc.byte_len);
	if (header.cookie != ((const struct fm_frame_header *)frame)->cookie)
		die("an answer with another cookie");
	if (payload)
		memcpy(payload, session->buffer[1] + sizeof(header), header.length < room ? header.length : room);
	return header.type;
}

int ask(struct session *session, int type, const void *payload, size_t length, void *answer, size_t room)
{
	char frame[sizeof(struct fm_frame_header) + FM_WIRE_PAYLOAD_MAX];
	struct fm_frame_header header = {
		.magic = FM_WIRE_MAGIC,
		.version = FM_WIRE_VERSION,
		.type = type,
		.length = length,
		.cookie = ++session->cookie,
	};

	memcpy(frame, &header, sizeof(header));
	if (length)
		memcpy(frame + sizeof(header), payload, length);
	return ask_raw(session, frame, sizeof(header) + length, answer, room);
}

int error_of(struct session *session, int type, const void *payload, size_t length)
{
	struct fm_error error = { 0 };

	switch (ask(session, type, payload, length, &error, sizeof(error))) {
	case 0:
		return -1;
	case FM_FRAME_ERROR:
		return error.code;
	default:
		return 0;
	}
}

void connect_control(struct session *session)
{
	struct fm_rdma_connect request = { .magic = FM_RDMA_MAGIC, .version_min = 1, .version_max = 1 };
	struct fm_rdma_accept accepted;

	memset(session, 0, sizeof(*session));
	if (try_connect(&session->control, &request, sizeof(request)))
		die("the control queue is not connected");
	memcpy(&accepted, session->control.private_data, sizeof(accepted));
	if (accepted.magic != FM_RDMA_MAGIC || accepted.version != 1 || accepted.queue || !accepted.credits)
		die("not accepted as docs/protocol.md says");
	session->mr = ibv_reg_mr(session->control.pd, session->buffer, sizeof(session->buffer), IBV_ACCESS_LOCAL_WRITE);
	if (!session->mr)
		die("ibv_reg_mr: %s", strerror(errno));
}

void say_hello(struct session *session, struct fm_welcome *welcome)
{
	struct fm_hello hello = { .version_min = 1, .version_max = 1, .client_name = "lab-client" };

	if (ask(session, FM_FRAME_HELLO, &hello, sizeof(hello), welcome, sizeof(*welcome)) != FM_FRAME_WELCOME)
		die("no welcome");
}

void authenticate(struct session *session, const struct fm_welcome *welcome)
{
	uint8_t secret[512], text[FM_WIRE_CHALLENGE_BYTES + FM_WIRE_NAME_MAX + 16];
	struct fm_auth auth = { 0 };
	size_t secret_bytes = 0, bytes = FM_WIRE_CHALLENGE_BYTES;

	if (!welcome->auth_required)
		return;
	for (const char *hex = key_hex; hex[0] && hex[1]; hex += 2)
		sscanf(hex, "%2hhx", &secret[secret_bytes++]);
	memcpy(text, welcome->challenge, bytes);
	memcpy(text + bytes, key_name, strlen(key_name));
	bytes += strlen(key_name);
	memcpy(text + bytes, "farmem-rdma", 11);
	bytes += 11;
	memcpy(auth.key_name, key_name, strlen(key_name));
	gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, secret_bytes, text, bytes, auth.mac);
	if (ask(session, FM_FRAME_AUTH, &auth, sizeof(auth), NULL, 0) != FM_FRAME_OK)
		die("the key was not taken");
}

void open_lease(struct session *session, const char *name, uint64_t size)
{
	struct fm_open open = { .size = size, .flags = FM_OPEN_CREATE };

	memcpy(open.lease_name, name, strlen(name));
	if (ask(session, FM_FRAME_OPEN, &open, sizeof(open), &session->lease, sizeof(session->lease)) !=
	    FM_FRAME_OPENED_RDMA)
		die("lease %s is not opened", name);
}

void begin(struct session *session, const char *name, uint64_t size)
{
	struct fm_welcome welcome;

	connect_control(session);
	say_hello(session, &welcome);
	authenticate(session, &welcome);
	open_lease(session, name, size);
}

uint32_t grant(struct session *session, uint32_t slab)
{
	struct fm_slabs slabs = { .first = slab, .count = 1 };
	struct fm_granted_keys keys = { 0 };

	if (ask(session, FM_FRAME_GRANT, &slabs, sizeof(slabs), &keys, sizeof(keys)) != FM_FRAME_GRANTED_KEYS ||
	    keys.first != slab || keys.count != 1)
		die("slab %u is not granted", slab);
	return keys.keys[0];
}

int connect_data(struct session *session, struct queue *queue, int number, const uint8_t *token)
{
	struct fm_rdma_connect request = {
		.magic = FM_RDMA_MAGIC,
		.version_min = 1,
		.version_max = 1,
		.queue = number,
		.session = session->lease.session,
	};

	memcpy(request.token, token, sizeof(request.token));
	return try_connect(queue, &request, sizeof(request));
}

void make_page(struct queue *queue, struct page *page)
{
	page->mr = ibv_reg_mr(queue->pd, page->bytes, sizeof(page->bytes), IBV_ACCESS_LOCAL_WRITE);
	if (!page->mr)
		die("ibv_reg_mr: %s", strerror(errno));
}

int transfer(struct queue *queue, struct page *page, int opcode, uint64_t address, uint32_t key, uint32_t bytes)
{
	struct ibv_sge part = { .addr = (uintptr_t)page->bytes, .length = bytes, .lkey = page->mr->lkey };
	struct ibv_send_wr work = {
		.sg_list = &part,
		.num_sge = 1,
		.opcode = opcode,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = address, .rkey = key },
	}, *bad;
	struct ibv_wc wc;

	if (ibv_post_send(queue->id->qp, &work, &bad))
		return -1;
	if (complete(queue->id, queue->id->send_cq, &wc, 20))
		return -1;
	return wc.status;
}
