#include <errno.h>
#include <fcntl.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

#include "CVerbsShims.h"

#define ID(i) ((struct rdma_cm_id *)(i))
#define DOMAIN(d) ((struct ibv_pd *)(d))
#define MEMORY(m) ((struct ibv_mr *)(m))

struct fm_rdma_cq {
	struct ibv_cq *queue;
	struct ibv_comp_channel *channel;
};

/* Calls that return an errno, as one convention. */
static int result(int code)
{
	if (!code)
		return 0;
	errno = code < 0 ? -code : code;
	return -1;
}

static struct ibv_context *device_of(const fm_rdma_id *id)
{
	struct ibv_context *context = ((const struct rdma_cm_id *)id)->verbs;

	if (!context)
		errno = ENODEV;
	return context;
}

int fm_rdma_query_device(const fm_rdma_id *id, struct fm_rdma_device *device)
{
	struct ibv_context *context = device_of(id);
	struct ibv_device_attr facts;
	int code;

	if (!context)
		return -1;
	code = ibv_query_device(context, &facts);
	if (code)
		return result(code);
	memset(device, 0, sizeof(*device));
	strncpy(device->name, ibv_get_device_name(context->device), sizeof(device->name) - 1);
	device->reads_in_max = (uint32_t)facts.max_qp_rd_atom;
	device->reads_out_max = (uint32_t)facts.max_qp_init_rd_atom;
	device->queue_depth_max = (uint32_t)facts.max_qp_wr;
	device->completions_max = (uint32_t)facts.max_cqe;
	device->regions_max = (uint64_t)facts.max_mr;
	device->region_bytes_max = facts.max_mr_size;
	return 0;
}

fm_rdma_domain *fm_rdma_domain_make(const fm_rdma_id *id)
{
	struct ibv_context *context = device_of(id);

	return context ? (fm_rdma_domain *)ibv_alloc_pd(context) : NULL;
}

int fm_rdma_domain_destroy(fm_rdma_domain *domain)
{
	return result(ibv_dealloc_pd(DOMAIN(domain)));
}

fm_rdma_memory *fm_rdma_register(fm_rdma_domain *domain, void *memory, size_t length, uint64_t address, int access)
{
	int flags = IBV_ACCESS_LOCAL_WRITE;

	if (access & FM_RDMA_REMOTE_READ)
		flags |= IBV_ACCESS_REMOTE_READ;
	if (access & FM_RDMA_REMOTE_WRITE)
		flags |= IBV_ACCESS_REMOTE_WRITE;
	return (fm_rdma_memory *)ibv_reg_mr_iova(DOMAIN(domain), memory, length, address, flags);
}

uint32_t fm_rdma_local_key(const fm_rdma_memory *memory)
{
	return ((const struct ibv_mr *)memory)->lkey;
}

uint32_t fm_rdma_remote_key(const fm_rdma_memory *memory)
{
	return ((const struct ibv_mr *)memory)->rkey;
}

int fm_rdma_deregister(fm_rdma_memory *memory)
{
	return result(ibv_dereg_mr(MEMORY(memory)));
}

fm_rdma_cq *fm_rdma_cq_make(const fm_rdma_id *id, int entries)
{
	struct ibv_context *context = device_of(id);
	struct fm_rdma_cq *cq;
	int flags, code;

	if (!context)
		return NULL;
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return NULL;
	cq->channel = ibv_create_comp_channel(context);
	if (!cq->channel)
		goto failed;
	flags = fcntl(cq->channel->fd, F_GETFL);
	if (flags < 0 || fcntl(cq->channel->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		goto failed;
	cq->queue = ibv_create_cq(context, entries, NULL, cq->channel, 0);
	if (cq->queue)
		return cq;
failed:
	code = errno;
	if (cq->channel)
		ibv_destroy_comp_channel(cq->channel);
	free(cq);
	errno = code;
	return NULL;
}

void fm_rdma_cq_destroy(fm_rdma_cq *cq)
{
	fm_rdma_cq_quiet(cq);
	ibv_destroy_cq(cq->queue);
	ibv_destroy_comp_channel(cq->channel);
	free(cq);
}

int fm_rdma_cq_fd(const fm_rdma_cq *cq)
{
	return cq->channel->fd;
}

int fm_rdma_cq_arm(fm_rdma_cq *cq)
{
	return result(ibv_req_notify_cq(cq->queue, 0));
}

void fm_rdma_cq_quiet(fm_rdma_cq *cq)
{
	struct ibv_cq *queue;
	void *context;
	unsigned int count = 0;

	while (!ibv_get_cq_event(cq->channel, &queue, &context))
		count++;
	if (count)
		ibv_ack_cq_events(cq->queue, count);
}

int fm_rdma_cq_poll(fm_rdma_cq *cq, struct fm_rdma_completion *completions, int count)
{
	struct ibv_wc raw[16];
	int done = 0;

	while (done < count) {
		int wanted = count - done < 16 ? count - done : 16;
		int got = ibv_poll_cq(cq->queue, wanted, raw);

		if (got < 0) {
			errno = EIO;
			return -1;
		}
		for (int index = 0; index < got; index++) {
			struct fm_rdma_completion *completion = &completions[done++];

			completion->id = raw[index].wr_id;
			completion->status = (uint32_t)raw[index].status;
			/* Of a failed request nothing but id and status means anything. */
			completion->bytes = raw[index].status == IBV_WC_SUCCESS ? raw[index].byte_len : 0;
		}
		if (got < wanted)
			break;
	}
	return done;
}

const char *fm_rdma_status_text(uint32_t status)
{
	return ibv_wc_status_str((enum ibv_wc_status)status);
}

int fm_rdma_queues_make(fm_rdma_id *id, fm_rdma_domain *domain, fm_rdma_cq *cq, uint32_t sends, uint32_t receives)
{
	struct ibv_qp_init_attr attributes = {
		.send_cq = cq->queue,
		.recv_cq = cq->queue,
		.cap = { .max_send_wr = sends, .max_recv_wr = receives, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
	};

	return rdma_create_qp(ID(id), DOMAIN(domain), &attributes) ? -1 : 0;
}

void fm_rdma_queues_destroy(fm_rdma_id *id)
{
	if (ID(id)->qp)
		rdma_destroy_qp(ID(id));
}

int fm_rdma_post(fm_rdma_id *id, const struct fm_rdma_work *work, int count)
{
	static const enum ibv_wr_opcode opcodes[] = {
		[FM_RDMA_SEND] = IBV_WR_SEND,
		[FM_RDMA_READ] = IBV_WR_RDMA_READ,
		[FM_RDMA_WRITE] = IBV_WR_RDMA_WRITE,
	};
	struct ibv_send_wr chain[FM_RDMA_CHAIN_MAX], *bad = NULL;
	struct ibv_sge parts[FM_RDMA_CHAIN_MAX];
	int code;

	if (count < 1 || count > FM_RDMA_CHAIN_MAX) {
		errno = EINVAL;
		return 0;
	}
	for (int index = 0; index < count; index++) {
		parts[index] = (struct ibv_sge){
			.addr = (uintptr_t)work[index].local, .length = work[index].bytes, .lkey = work[index].local_key,
		};
		chain[index] = (struct ibv_send_wr){
			.wr_id = work[index].id,
			.next = index + 1 < count ? &chain[index + 1] : NULL,
			.sg_list = &parts[index],
			.num_sge = 1,
			.opcode = opcodes[work[index].operation],
			.send_flags = work[index].is_silent ? 0 : IBV_SEND_SIGNALED,
			.wr.rdma = { .remote_addr = work[index].remote_address, .rkey = work[index].remote_key },
		};
	}
	code = ibv_post_send(ID(id)->qp, chain, &bad);
	if (!code)
		return count;
	errno = code < 0 ? -code : code;
	return bad >= chain && bad < chain + count ? (int)(bad - chain) : 0;
}

int fm_rdma_post_receive(fm_rdma_id *id, uint64_t work_id, void *memory, uint32_t bytes, uint32_t local_key)
{
	struct ibv_sge part = { .addr = (uintptr_t)memory, .length = bytes, .lkey = local_key };
	struct ibv_recv_wr receive = { .wr_id = work_id, .sg_list = &part, .num_sge = 1 }, *bad;

	return result(ibv_post_recv(ID(id)->qp, &receive, &bad));
}
