// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: the control queue. One request at a time, each with a
 * deadline; what the server sends unasked ends the session.
 *
 * Runs in the device's thread, but for the completions.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <crypto/hash.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/utsname.h>

#include "rdma.h"

#define FRAMES		(RDMA_RECEIVES + 1)
#define FRAMES_BYTES	(FRAMES * sizeof(struct rdma_frame))
#define MAC_TEXT	"farmem-rdma"

static u64 address_of(struct rdma_control *control, int frame)
{
	return control->mapped + frame * sizeof(struct rdma_frame);
}

static struct rdma_far *far_of(struct ib_cq *cq)
{
	struct rdma_queue *queue = cq->cq_context;

	return queue->far;
}

static void sent(struct ib_cq *cq, struct ib_wc *wc)
{
	if (wc->status != IB_WC_SUCCESS)
		rdma_poke(far_of(cq), RDMA_FAILED);
}

static void received(struct ib_cq *cq, struct ib_wc *wc)
{
	struct rdma_far *far = far_of(cq);
	struct rdma_control *control = &far->control;
	int frame;

	for (frame = 0; frame < RDMA_RECEIVES; frame++)
		if (wc->wr_cqe == &control->received[frame])
			break;
	if (wc->status != IB_WC_SUCCESS || !xchg(&control->asked, false)) {
		rdma_poke(far, RDMA_FAILED);
		return;
	}
	control->arrived_bytes = wc->byte_len;
	/* After the length: pairs with answered(). */
	smp_store_release(&control->arrived, frame);
	wake_up(&far->wake);
}

static int post_receive(struct rdma_far *far, int frame)
{
	struct rdma_control *control = &far->control;
	struct ib_sge sge = {
		.addr = address_of(control, frame),
		.length = sizeof(struct rdma_frame),
		.lkey = far->pd->local_dma_lkey,
	};
	struct ib_recv_wr request = {
		.wr_cqe = &control->received[frame],
		.sg_list = &sge,
		.num_sge = 1,
	};

	control->received[frame].done = received;
	return ib_post_recv(control->queue.id->qp, &request, NULL);
}

static int post_send(struct rdma_far *far, u32 size)
{
	struct rdma_control *control = &far->control;
	struct ib_sge sge = {
		.addr = address_of(control, RDMA_RECEIVES),
		.length = sizeof(struct fm_frame_header) + size,
		.lkey = far->pd->local_dma_lkey,
	};
	struct ib_send_wr request = {
		.wr_cqe = &control->sent,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IB_WR_SEND,
		.send_flags = IB_SEND_SIGNALED,
	};

	control->sent.done = sent;
	return ib_post_send(control->queue.id->qp, &request, NULL);
}

/* What an ERROR means for us; its text goes to the log. */
static int errno_of(struct rdma_far *far, const struct fm_error *error)
{
	u32 code = le32_to_cpu(error->code);

	far->control.refusal = code;
	if (code != FM_ERROR_NO_SPACE)
		pr_info_ratelimited("%s: the server says: %.*s\n", far->device->name,
				    FM_WIRE_TEXT_MAX, error->text);
	switch (code) {
	case FM_ERROR_VERSION:
		far->problem = "farmem: the server speaks another version of the protocol";
		return -EPROTONOSUPPORT;
	case FM_ERROR_UNAUTHORIZED:
		far->problem = "farmem: the server does not accept this key";
		return -EACCES;
	case FM_ERROR_NO_LEASE:
		far->problem = "farmem: the server has no such lease";
		return -ENOENT;
	case FM_ERROR_BUSY:
		far->problem = "farmem: another client has this lease open";
		return -EBUSY;
	case FM_ERROR_NO_SPACE:
		far->problem = "farmem: the server has no memory left";
		return -ENOSPC;
	case FM_ERROR_EXISTS:
		far->problem = "farmem: the server has this lease with another size";
		return -EEXIST;
	case FM_ERROR_LIMIT:
		far->problem = "farmem: the server has too many sessions or leases";
		return -EUSERS;
	default:
		far->problem = "farmem: the server refused; the kernel's log says why";
		return -EREMOTEIO;
	}
}

static bool answered(struct rdma_control *control)
{
	/* Pairs with received(). */
	return smp_load_acquire(&control->arrived) >= 0;
}

/**
 * rdma_control_call() - ask the server
 * @far: with its control queue connected
 * @type: of the request
 * @payload: of the request
 * @size: of @payload
 * @answer: the type that is expected
 * @reply: for the answer's payload
 * @reply_max: the room there
 * @reply_size: how much of it was filled; NULL where it must be @reply_max
 *
 * Return: 0, the errno for what the server said in an ERROR, with
 * rdma_control.refusal set, or another errno, after which the session is over.
 */
int rdma_control_call(struct rdma_far *far, enum fm_frame_type type,
		      const void *payload, u32 size, enum fm_frame_type answer,
		      void *reply, u32 reply_max, u32 *reply_size)
{
	struct rdma_control *control = &far->control;
	struct rdma_frame *frame = &control->frames[RDMA_RECEIVES];
	unsigned long timeout = msecs_to_jiffies(RDMA_REPLY_MS);
	u32 bytes, got;
	int error;

	control->refusal = 0;
	frame->header = (struct fm_frame_header) {
		.magic = cpu_to_le32(FM_WIRE_MAGIC),
		.version = cpu_to_le16(FM_WIRE_VERSION),
		.type = cpu_to_le16(type),
		.length = cpu_to_le32(size),
		.cookie = cpu_to_le32(++control->cookie),
	};
	if (size)
		memcpy(frame->payload, payload, size);
	control->arrived = -1;
	/* After the reply is reset: received() takes it back. */
	smp_store_release(&control->asked, true);
	ib_dma_sync_single_for_device(far->ibdev, control->mapped, FRAMES_BYTES,
				      DMA_BIDIRECTIONAL);
	control->spoken = jiffies;
	error = post_send(far, size);
	if (error)
		goto fail;
	if (!far->opened || far->state != RDMA_LIVE)
		timeout = min(timeout, (unsigned long)max_t(long, far->open_until - jiffies, 1));
	error = -ETIMEDOUT;
	wait_event_timeout(far->wake, answered(control) || rdma_failed(far), timeout);
	if (!answered(control)) {
		far->problem = "farmem: the server does not answer";
		goto fail;
	}

	ib_dma_sync_single_for_cpu(far->ibdev, control->mapped, FRAMES_BYTES,
				   DMA_BIDIRECTIONAL);
	frame = &control->frames[control->arrived];
	bytes = control->arrived_bytes;
	error = -EPROTO;
	far->problem = "farmem: the server's answer makes no sense";
	if (bytes < sizeof(frame->header) ||
	    le32_to_cpu(frame->header.magic) != FM_WIRE_MAGIC ||
	    le16_to_cpu(frame->header.version) != FM_WIRE_VERSION ||
	    le32_to_cpu(frame->header.cookie) != control->cookie)
		goto fail;
	got = le32_to_cpu(frame->header.length);
	if (got != bytes - sizeof(frame->header))
		goto fail;
	if (le16_to_cpu(frame->header.type) == FM_FRAME_ERROR &&
	    got == sizeof(struct fm_error)) {
		error = errno_of(far, (struct fm_error *)frame->payload);
	} else if (le16_to_cpu(frame->header.type) == answer && got <= reply_max &&
		   (reply_size || got == reply_max)) {
		if (reply)
			memcpy(reply, frame->payload, got);
		if (reply_size)
			*reply_size = got;
		error = 0;
	} else {
		goto fail;
	}
	if (!post_receive(far, control->arrived))
		return error;
	error = -EIO;
fail:
	rdma_poke(far, RDMA_FAILED);
	return error;
}

/* Answers the server's challenge. */
static int authenticate(struct rdma_far *far, const struct fm_welcome *welcome)
{
	struct fm_auth auth = { };
	int error;

	if (!far->hmac) {
		far->problem = "farmem: the server wants a key";
		return -EACCES;
	}
	memcpy(auth.key_name, far->key_name, sizeof(auth.key_name));
	{
		SHASH_DESC_ON_STACK(digest, far->hmac);

		digest->tfm = far->hmac;
		error = crypto_shash_init(digest) ?:
			crypto_shash_update(digest, welcome->challenge,
					    sizeof(welcome->challenge)) ?:
			crypto_shash_update(digest, far->key_name, strlen(far->key_name)) ?:
			crypto_shash_finup(digest, MAC_TEXT, strlen(MAC_TEXT), auth.mac);
		shash_desc_zero(digest);
	}
	if (!error)
		error = rdma_control_call(far, FM_FRAME_AUTH, &auth, sizeof(auth),
					  FM_FRAME_OK, NULL, 0, NULL);
	/* A server may hang up instead of telling why. */
	if (error == -ETIMEDOUT && rdma_failed(far)) {
		far->problem = "farmem: the server does not accept this key";
		error = -EACCES;
	}
	return error;
}

static int greet(struct rdma_far *far, struct fm_welcome *welcome)
{
	struct fm_hello hello = {
		.version_min = cpu_to_le16(FM_WIRE_VERSION),
		.version_max = cpu_to_le16(FM_WIRE_VERSION),
	};
	int error;

	snprintf(hello.client_name, sizeof(hello.client_name), "farmem.ko %.50s",
		 init_utsname()->nodename);
	error = rdma_control_call(far, FM_FRAME_HELLO, &hello, sizeof(hello),
				  FM_FRAME_WELCOME, welcome, sizeof(*welcome), NULL);
	if (error)
		return error;
	if (le16_to_cpu(welcome->version) != FM_WIRE_VERSION) {
		far->problem = "farmem: the server speaks another version of the protocol";
		return -EPROTONOSUPPORT;
	}
	return welcome->auth_required ? authenticate(far, welcome) : 0;
}

static int open_lease(struct rdma_far *far, u32 slab, struct fm_opened_rdma *opened)
{
	struct fm_open open = { .flags = cpu_to_le32(FM_OPEN_CREATE) };
	u64 size = far->device->size << PAGE_SHIFT;

	far->problem = "farmem: the server's answer makes no sense";
	if (!is_power_of_2(slab) || slab < PAGE_SIZE)
		return -EPROTO;
	memcpy(open.lease_name, far->lease, sizeof(open.lease_name));
	open.size = cpu_to_le64(round_up(size, slab));
	return rdma_control_call(far, FM_FRAME_OPEN, &open, sizeof(open),
				 FM_FRAME_OPENED_RDMA, opened, sizeof(*opened), NULL);
}

static int resume_lease(struct rdma_far *far, struct fm_opened_rdma *opened)
{
	struct fm_resume resume = { .session = far->lease_info.session };
	int error;

	memcpy(resume.lease_name, far->lease, sizeof(resume.lease_name));
	memcpy(resume.token, far->lease_info.token, sizeof(resume.token));
	error = rdma_control_call(far, FM_FRAME_RESUME, &resume, sizeof(resume),
				  FM_FRAME_OPENED_RDMA, opened, sizeof(*opened), NULL);
	if (error == -ENOENT ||
	    (!error && (opened->lease_id != far->lease_info.lease_id ||
			opened->epoch != far->lease_info.epoch ||
			opened->size != far->lease_info.size ||
			opened->slab_bytes != far->lease_info.slab_bytes)))
		return -ENODATA;
	return error;
}

/* The lease's first session, or one more of the lease that was had before. */
static int take_lease(struct rdma_far *far)
{
	struct fm_opened_rdma opened;
	struct fm_welcome welcome;
	u64 size = far->device->size << PAGE_SHIFT;
	int error = greet(far, &welcome);

	if (error)
		return error;
	error = far->opened ? resume_lease(far, &opened) :
		open_lease(far, le32_to_cpu(welcome.slab_bytes), &opened);
	if (error)
		return error;
	far->problem = "farmem: the server's answer makes no sense";
	if (!is_power_of_2(le32_to_cpu(opened.slab_bytes)) ||
	    le32_to_cpu(opened.slab_bytes) < PAGE_SIZE ||
	    le64_to_cpu(opened.size) < size || !opened.queues_max)
		return -EPROTO;
	far->lease_info = opened;
	return 0;
}

/**
 * rdma_control_open() - a new session
 * @far: whose last session is closed
 *
 * Return: 0, -ENODATA when the server does not have the lease any more, or
 * another errno, with rdma_far.problem set.
 */
int rdma_control_open(struct rdma_far *far)
{
	struct rdma_control *control = &far->control;
	int error, frame;

	control->queue.number = 0;
	control->queue.far = far;
	control->arrived = -1;
	control->asked = false;
	/* Four may be in the queue at once: the last one's acknowledgment can be late. */
	error = rdma_queue_open(&control->queue, 4, RDMA_RECEIVES, 1, IB_POLL_SOFTIRQ, 1);
	if (error)
		return error;
	control->mapped = ib_dma_map_single(far->ibdev, control->frames, FRAMES_BYTES,
					    DMA_BIDIRECTIONAL);
	if (ib_dma_mapping_error(far->ibdev, control->mapped)) {
		control->mapped = 0;
		return -ENOMEM;
	}
	for (frame = 0; frame < RDMA_RECEIVES && !error; frame++)
		error = post_receive(far, frame);
	return error ?: take_lease(far);
}

void rdma_control_close(struct rdma_far *far)
{
	struct rdma_control *control = &far->control;

	rdma_queue_disconnect(&control->queue);
	rdma_queue_close(&control->queue);
	if (control->mapped)
		ib_dma_unmap_single(far->ibdev, control->mapped, FRAMES_BYTES,
				    DMA_BIDIRECTIONAL);
	control->mapped = 0;
}

/* The key of @options, ready for use: later there may be no memory for it. */
int rdma_set_key(struct rdma_far *far, const struct farmem_options *options)
{
	struct crypto_shash *hmac;
	int error;

	if (!options->key_name)
		return 0;
	hmac = crypto_alloc_shash("hmac(sha256)", 0, 0);
	if (IS_ERR(hmac)) {
		far->problem = "farmem: this kernel has no HMAC-SHA256, which keys need";
		return PTR_ERR(hmac);
	}
	far->problem = "farmem: this kernel does not take the key's secret";
	error = crypto_shash_setkey(hmac, options->secret, options->secret_size);
	if (error) {
		crypto_free_shash(hmac);
		return error;
	}
	strscpy(far->key_name, options->key_name, sizeof(far->key_name));
	far->hmac = hmac;
	return 0;
}
