// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: one connection, from the address to its end.
 *
 * All of it runs in the device's thread but for the handler of events, which
 * tells the thread. Every step has a time limit.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/inet.h>
#include <linux/kthread.h>

#include "rdma.h"

/* The device repeats what is not acknowledged in 4 us << 15 = 134 ms, 7 times. */
#define ACK_TIMEOUT	15
#define RETRIES		7

/* Until the condition holds, the session failed, the thread shall stop, or it is late. */
bool rdma_wait(struct rdma_far *far, bool *condition, unsigned long timeout)
{
	/* Both pair with step(). */
	wait_event_timeout(far->wake, smp_load_acquire(condition) || rdma_failed(far) ||
			   kthread_should_stop(), timeout);
	/* As above. */
	return smp_load_acquire(condition);
}

static void step(struct rdma_queue *queue, int status)
{
	queue->status = status;
	/* After the status: pairs with rdma_wait(). */
	smp_store_release(&queue->stepped, true);
	wake_up(&queue->far->wake);
}

static int refusal(struct rdma_queue *queue, struct rdma_cm_event *event)
{
	struct rdma_far *far = queue->far;
	const struct fm_rdma_reject *said;
	u8 size = 0;

	said = rdma_consumer_reject_data(queue->id, event, &size);
	if (!said || size < sizeof(*said) || le32_to_cpu(said->magic) != FM_RDMA_MAGIC) {
		far->problem = "farmem: nobody listens there: does memserver run with --rdma?";
		return -ECONNREFUSED;
	}
	pr_info_ratelimited("%s: queue %u refused: %.*s\n", far->device->name, queue->number,
			    FM_RDMA_TEXT_MAX, said->text);
	switch (le16_to_cpu(said->code)) {
	case FM_ERROR_VERSION:
		far->problem = "farmem: the server speaks another version of the protocol";
		return -EPROTONOSUPPORT;
	case FM_ERROR_LIMIT:
		far->problem = "farmem: the server has too many sessions";
		return -EUSERS;
	default:
		far->problem = "farmem: the server refused the connection; see the kernel's log";
		return -ECONNREFUSED;
	}
}

static int handle(struct rdma_cm_id *id, struct rdma_cm_event *event)
{
	struct rdma_queue *queue = id->context;
	struct rdma_far *far = queue->far;

	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		step(queue, 0);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		/* The transport may have made it longer, not shorter. */
		if (event->param.conn.private_data_len >= sizeof(queue->accept))
			memcpy(&queue->accept, event->param.conn.private_data,
			       sizeof(queue->accept));
		step(queue, 0);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		far->problem = "farmem: no RDMA device of this host leads to that address";
		step(queue, -EHOSTUNREACH);
		break;
	case RDMA_CM_EVENT_REJECTED:
		step(queue, refusal(queue, event));
		break;
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
		far->problem = "farmem: that address does not answer";
		step(queue, -ETIMEDOUT);
		break;
	default:
		/* Disconnected, removed, moved: whatever it is, this session is over. */
		rdma_poke(far, RDMA_FAILED);
		break;
	}
	return 0;
}

static int await(struct rdma_queue *queue)
{
	struct rdma_far *far = queue->far;
	unsigned long limit = min(jiffies + far->step_jiffies, far->open_until);
	long left = limit - jiffies;

	if (left > 0 && rdma_wait(far, &queue->stepped, left)) {
		queue->stepped = false;
		return queue->status;
	}
	far->problem = rdma_failed(far) ? "farmem: the server ended the connection" :
		"farmem: that address does not answer";
	return rdma_failed(far) ? -ECONNRESET : -ETIMEDOUT;
}

static int make_pair(struct rdma_queue *queue, u32 sends, u32 receives, u32 sges,
		     enum ib_poll_context context)
{
	struct rdma_far *far = queue->far;
	/* One more of each, for draining. */
	struct ib_qp_init_attr attributes = {
		.cap = {
			.max_send_wr = sends + 1,
			.max_recv_wr = receives + 1,
			.max_send_sge = sges,
			.max_recv_sge = 1,
		},
		.sq_sig_type = IB_SIGNAL_REQ_WR,
		.qp_type = IB_QPT_RC,
	};
	int error;

	queue->cq = ib_alloc_cq(far->ibdev, queue, sends + receives + 2,
				queue->number % far->ibdev->num_comp_vectors, context);
	if (IS_ERR(queue->cq)) {
		error = PTR_ERR(queue->cq);
		queue->cq = NULL;
		return error;
	}
	attributes.send_cq = queue->cq;
	attributes.recv_cq = queue->cq;
	return rdma_create_qp(queue->id, far->pd, &attributes);
}

static int connect(struct rdma_queue *queue, u8 reads)
{
	struct rdma_far *far = queue->far;
	struct fm_rdma_connect hello = {
		.magic = cpu_to_le32(FM_RDMA_MAGIC),
		.version_min = cpu_to_le16(FM_WIRE_VERSION),
		.version_max = cpu_to_le16(FM_WIRE_VERSION),
		.queue = cpu_to_le16(queue->number),
	};
	struct rdma_conn_param parameters = {
		.private_data = &hello,
		.private_data_len = sizeof(hello),
		.responder_resources = 1,
		.initiator_depth = reads,
		.retry_count = RETRIES,
		.rnr_retry_count = RETRIES,
	};
	int error;

	if (queue->number) {
		hello.session = far->lease_info.session;
		memcpy(hello.token, far->lease_info.token, sizeof(hello.token));
	}
	error = rdma_connect(queue->id, &parameters);
	if (!error)
		error = await(queue);
	if (error)
		return error;
	queue->connected = true;
	if (le32_to_cpu(queue->accept.magic) != FM_RDMA_MAGIC ||
	    le16_to_cpu(queue->accept.version) != FM_WIRE_VERSION ||
	    le16_to_cpu(queue->accept.queue) != queue->number) {
		far->problem = "farmem: what answers there is no memserver of this version";
		return -EPROTO;
	}
	return 0;
}

/**
 * rdma_queue_open() - connect
 * @queue: with number and far; on failure to be closed, too
 * @sends: work requests that may wait in it
 * @receives: the same for receiving
 * @sges: pages of one work request
 * @context: how completions are noticed
 * @reads: how many READs may be under way
 *
 * Return: 0 or a negative errno, with rdma_far.problem set.
 */
int rdma_queue_open(struct rdma_queue *queue, u32 sends, u32 receives, u32 sges,
		    enum ib_poll_context context, u8 reads)
{
	struct rdma_far *far = queue->far;
	struct rdma_cm_id *id;
	int error;

	queue->stepped = false;
	queue->connected = false;
	memset(&queue->accept, 0, sizeof(queue->accept));
	far->problem = "farmem: the RDMA device gave no queue";
	id = rdma_create_id(far->net, handle, queue, RDMA_PS_TCP, IB_QPT_RC);
	if (IS_ERR(id))
		return PTR_ERR(id);
	queue->id = id;
	far->problem = "farmem: no RDMA device of this host leads to that address";
	error = rdma_set_ack_timeout(id, ACK_TIMEOUT);
	if (!error)
		error = rdma_resolve_addr(id, NULL, (struct sockaddr *)&far->address,
					  jiffies_to_msecs(far->step_jiffies));
	if (!error)
		error = await(queue);
	if (!error)
		error = rdma_resolve_route(id, jiffies_to_msecs(far->step_jiffies));
	if (!error)
		error = await(queue);
	if (error == -ETIMEDOUT) {
		/* Nobody has that address, or it was not heard. */
		far->problem = "farmem: no RDMA device of this host leads to that address";
		error = -EHOSTUNREACH;
	}
	if (error)
		return error;
	if (!far->pd) {
		far->ibdev = id->device;
		far->pd = ib_alloc_pd(far->ibdev, 0);
		if (IS_ERR(far->pd)) {
			error = PTR_ERR(far->pd);
			far->pd = NULL;
			return error;
		}
	} else if (far->ibdev != id->device) {
		return -EHOSTUNREACH;
	}
	far->problem = "farmem: the RDMA device gave no queue";
	error = make_pair(queue, sends, receives, sges, context);
	return error ?: connect(queue, reads);
}

/* Ends it without waiting for the end. */
void rdma_queue_disconnect(struct rdma_queue *queue)
{
	if (queue->connected)
		rdma_disconnect(queue->id);
}

/* When it returns the device has no work request of this queue any more. */
void rdma_queue_close(struct rdma_queue *queue)
{
	if (!queue->id)
		return;
	if (queue->connected)
		ib_drain_qp(queue->id->qp);
	queue->connected = false;
	if (queue->id->qp)
		rdma_destroy_qp(queue->id);
	if (queue->cq)
		ib_free_cq(queue->cq);
	queue->cq = NULL;
}

/* After it was closed: lets go of the device. No event comes any more. */
void rdma_queue_release(struct rdma_queue *queue)
{
	if (queue->id)
		rdma_destroy_id(queue->id);
	queue->id = NULL;
}
