// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: work requests from the slot to the completion, and what
 * becomes of them when a session ends.
 *
 * A slot is free, parked (it waits for a session or for its slab) or posted.
 * What was posted leaves that list by a good completion only, or when the queue
 * was drained and destroyed: before that the device may still carry it out, so
 * its pages are neither ended nor sent again.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "rdma.h"

static unsigned int break_reads;
module_param(break_reads, uint, 0600);
MODULE_PARM_DESC(break_reads, "For tests: every N-th READ counts as failed by the device; 0 is none");

static unsigned int break_writes;
module_param(break_writes, uint, 0600);
MODULE_PARM_DESC(break_writes, "For tests: every N-th WRITE counts as failed by the device; 0 is none");

static unsigned int stall_ms = 2000;
module_param(stall_ms, uint, 0600);
MODULE_PARM_DESC(stall_ms, "A session is given up when a work request takes longer, in ms");

static enum dma_data_direction dma_direction(struct rdma_slot *slot)
{
	return slot->direction == FARMEM_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
}

static void unmap(struct rdma_far *far, struct rdma_slot *slot, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		ib_dma_unmap_page(far->ibdev, slot->sges[i].addr, PAGE_SIZE,
				  dma_direction(slot));
}

static int map(struct rdma_far *far, struct rdma_slot *slot)
{
	u32 i;

	for (i = 0; i < slot->count; i++) {
		u64 address = ib_dma_map_page(far->ibdev, slot->pages[i], 0, PAGE_SIZE,
					      dma_direction(slot));

		if (ib_dma_mapping_error(far->ibdev, address)) {
			unmap(far, slot, i);
			return -ENOMEM;
		}
		slot->sges[i] = (struct ib_sge) {
			.addr = address,
			.length = PAGE_SIZE,
			.lkey = far->pd->local_dma_lkey,
		};
	}
	return 0;
}

/* One page of a request is done; the request is when that was the last. */
void rdma_part_end(struct farmem_io *io, int error)
{
	if (error)
		WRITE_ONCE(io->error, error);
	if (atomic_dec_and_test(&io->parts))
		farmem_end_io(io, READ_ONCE(io->error));
}

/* In no list, and the device does not have it: its pages are done. */
void rdma_slot_end(struct rdma_slot *slot, int error)
{
	struct rdma_lane *lane = slot->lane;
	struct rdma_far *far = lane->far;
	struct rdma_slab *slab = slot->slab;
	bool *ended = slot->ended;
	unsigned long flags;
	u32 i;

	spin_lock_irqsave(&slab->lock, flags);
	if (slot->direction == FARMEM_WRITE && !error)
		for (i = 0; i < slot->count; i++)
			slab->present += !test_and_set_bit(slot->first + i, far->present);
	slab->busy--;
	rdma_slab_idle(far, slab);
	spin_unlock_irqrestore(&slab->lock, flags);

	for (i = 0; i < slot->count; i++)
		rdma_part_end(slot->ios[i], error);

	spin_lock_irqsave(&lane->lock, flags);
	list_add(&slot->link, &lane->free);
	spin_unlock_irqrestore(&lane->lock, flags);
	up(&lane->room);
	if (ended)
		/* After all of it: pairs with rdma_poll(). */
		smp_store_release(ended, true);
}

/* Plays the failures of a device. */
static bool broken(struct rdma_slot *slot)
{
	static atomic_t turns = ATOMIC_INIT(0);
	unsigned int every = slot->direction == FARMEM_READ ?
		READ_ONCE(break_reads) : READ_ONCE(break_writes);

	return every && !((unsigned int)atomic_inc_return(&turns) % every);
}

static void completed(struct ib_cq *cq, struct ib_wc *wc)
{
	struct rdma_slot *slot = container_of(wc->wr_cqe, struct rdma_slot, done);
	struct rdma_lane *lane = slot->lane;
	struct rdma_far *far = lane->far;
	unsigned long flags;

	if (wc->status != IB_WC_SUCCESS || broken(slot)) {
		/* It stays among the posted until the queue is drained. */
		if (wc->status != IB_WC_WR_FLUSH_ERR) {
			farmem_add(far->device, FARMEM_C_COMPLETION_ERRORS, 1);
			pr_info_ratelimited("%s: %s of %u pages: %s\n", far->device->name,
					    slot->direction == FARMEM_READ ? "READ" : "WRITE",
					    slot->count, ib_wc_status_msg(wc->status));
		}
		rdma_poke(far, RDMA_FAILED);
		return;
	}
	spin_lock_irqsave(&lane->lock, flags);
	list_del(&slot->link);
	spin_unlock_irqrestore(&lane->lock, flags);
	unmap(far, slot, slot->count);
	rdma_slot_end(slot, 0);
}

/* Ready to be posted: 0. To be parked: -EAGAIN. Else what it fails with. */
static int prepare(struct rdma_far *far, struct rdma_slot *slot)
{
	struct rdma_slab *slab = slot->slab;
	u64 offset = slot->first << PAGE_SHIFT;
	unsigned long flags;
	int error = 0;

	if (READ_ONCE(far->state) == RDMA_LOST)
		return -ENODATA;
	if (time_after_eq(jiffies, slot->deadline))
		return -ETIMEDOUT;
	spin_lock_irqsave(&slab->lock, flags);
	if (slab->state == RDMA_SLAB_READY)
		slot->wr.rkey = slab->key;
	else
		error = rdma_slab_want(far, slab) ?: -EAGAIN;
	spin_unlock_irqrestore(&slab->lock, flags);
	if (error || !slot->lane->live)
		return error ?: -EAGAIN;
	if (map(far, slot))
		return -EAGAIN;
	slot->done.done = completed;
	slot->wr.remote_addr = le64_to_cpu(far->lease_info.base) + offset;
	slot->wr.wr = (struct ib_send_wr) {
		.wr_cqe = &slot->done,
		.sg_list = slot->sges,
		.num_sge = slot->count,
		.opcode = slot->direction == FARMEM_READ ? IB_WR_RDMA_READ : IB_WR_RDMA_WRITE,
		.send_flags = IB_SEND_SIGNALED,
	};
	slot->posted = jiffies;
	return 0;
}

/**
 * rdma_lane_issue() - post slots, or park those that have to wait
 * @lane: theirs
 * @slots: a list of them, empty afterwards
 *
 * With one doorbell for all of them. What the device's driver does in softirq,
 * as Soft-RoCE does all, starts at once in this task instead of waiting for
 * ksoftirqd to get the processor from it.
 */
void rdma_lane_issue(struct rdma_lane *lane, struct list_head *slots)
{
	struct rdma_far *far = lane->far;
	struct ib_send_wr *first = NULL, **link = &first;
	struct rdma_slot *slot, *next;
	LIST_HEAD(failed);
	unsigned long flags;

	local_bh_disable();
	spin_lock_irqsave(&lane->lock, flags);
	list_for_each_entry_safe(slot, next, slots, link) {
		int error = prepare(far, slot);

		if (error == -EAGAIN) {
			list_move_tail(&slot->link, &lane->parked);
		} else if (error) {
			slot->error = error;
			list_move_tail(&slot->link, &failed);
		} else {
			list_move_tail(&slot->link, &lane->posted);
			*link = &slot->wr.wr;
			link = (struct ib_send_wr **)&slot->wr.wr.next;
		}
	}
	/* Those that are refused stay among the posted until the queue is drained. */
	if (first && ib_post_send(lane->queue.id->qp, first, NULL))
		rdma_poke(far, RDMA_FAILED);
	spin_unlock_irqrestore(&lane->lock, flags);
	local_bh_enable();
	rdma_arm(far);
	list_for_each_entry_safe(slot, next, &failed, link)
		rdma_slot_end(slot, slot->error);
}

/* Tries again what is parked, and ends what is late. */
static void kick(struct rdma_lane *lane)
{
	LIST_HEAD(slots);
	unsigned long flags;

	spin_lock_irqsave(&lane->lock, flags);
	list_splice_init(&lane->parked, &slots);
	spin_unlock_irqrestore(&lane->lock, flags);
	if (!list_empty(&slots))
		rdma_lane_issue(lane, &slots);
}

void rdma_lanes_kick(struct rdma_far *far)
{
	unsigned int i;

	for (i = 0; i < far->lane_count; i++)
		kick(&far->lanes[i]);
}

/*
 * A posted slot is too old: then the session is. Its deadline alone is no
 * reason: behind others on a slow link it may pass while all is well, and
 * ending the session would send all of them again.
 */
static bool stalled(struct rdma_lane *lane)
{
	unsigned long limit = msecs_to_jiffies(READ_ONCE(stall_ms));
	struct rdma_slot *slot;
	unsigned long flags;
	bool late = false;

	spin_lock_irqsave(&lane->lock, flags);
	list_for_each_entry(slot, &lane->posted, link) {
		late = time_after_eq(jiffies, slot->posted + limit);
		if (late)
			break;
	}
	spin_unlock_irqrestore(&lane->lock, flags);
	return late;
}

void rdma_timer(struct timer_list *timer)
{
	struct rdma_far *far = from_timer(far, timer, timer);
	bool outstanding = false;
	unsigned int i;

	for (i = 0; i < far->lane_count; i++) {
		struct rdma_lane *lane = &far->lanes[i];

		kick(lane);
		if (lane->live && stalled(lane))
			rdma_poke(far, RDMA_FAILED);
		outstanding |= !list_empty_careful(&lane->parked) ||
			!list_empty_careful(&lane->posted);
	}
	if (outstanding)
		rdma_arm(far);
}

/**
 * rdma_poll() - spin until a slot is ended
 * @lane: a polled one
 * @ended: set when it is
 */
void rdma_poll(struct rdma_lane *lane, bool *ended)
{
	u64 patience = ktime_get_ns() + 200 * NSEC_PER_USEC;

	/* Pairs with rdma_slot_end(). */
	while (!smp_load_acquire(ended)) {
		/* Under the lock the queue is not taken down. */
		if (spin_trylock(&lane->poll_lock)) {
			if (READ_ONCE(lane->live))
				ib_process_cq_direct(lane->queue.cq, RDMA_SLOTS);
			spin_unlock(&lane->poll_lock);
		}
		if (!READ_ONCE(lane->live))
			usleep_range(1000, 2000);
		else if (ktime_get_ns() > patience)
			usleep_range(20, 50);
		else
			cpu_relax();
		cond_resched();
	}
}

/* Connects all lanes' queues for the session. */
int rdma_lanes_open(struct rdma_far *far)
{
	u8 reads = clamp_t(int, min_t(int, le16_to_cpu(far->lease_info.reads_max),
				      far->ibdev->attrs.max_qp_init_rd_atom), 1, 255);
	unsigned int i;
	int error = 0;

	if (far->lane_count > le16_to_cpu(far->lease_info.queues_max)) {
		far->problem = "farmem: the server allows fewer queues than before";
		return -EUSERS;
	}
	for (i = 0; i < far->lane_count && !error; i++) {
		struct rdma_lane *lane = &far->lanes[i];

		error = rdma_queue_open(&lane->queue, far->slots, 0, far->pages_max,
					lane->polled ? IB_POLL_DIRECT : IB_POLL_SOFTIRQ,
					reads);
	}
	return error;
}

/* The session is ready: what waited for it goes. */
void rdma_lanes_go(struct rdma_far *far)
{
	unsigned int i;

	for (i = 0; i < far->lane_count; i++) {
		struct rdma_lane *lane = &far->lanes[i];
		unsigned long flags;

		spin_lock_irqsave(&lane->lock, flags);
		lane->live = true;
		spin_unlock_irqrestore(&lane->lock, flags);
	}
	rdma_lanes_kick(far);
}

/* Nothing is posted or polled any more. */
void rdma_lanes_stop(struct rdma_far *far)
{
	unsigned int i;

	for (i = 0; i < far->lane_count; i++) {
		struct rdma_lane *lane = &far->lanes[i];
		unsigned long flags;

		spin_lock_irqsave(&lane->lock, flags);
		lane->live = false;
		spin_unlock_irqrestore(&lane->lock, flags);
		spin_lock(&lane->poll_lock);
		spin_unlock(&lane->poll_lock);
		rdma_queue_disconnect(&lane->queue);
	}
}

/* After rdma_lanes_stop(): ends the queues, and takes back what they carried. */
void rdma_lanes_close(struct rdma_far *far)
{
	unsigned int i;

	for (i = 0; i < far->lane_count; i++) {
		struct rdma_lane *lane = &far->lanes[i];
		struct rdma_slot *slot;
		unsigned long flags;

		rdma_queue_close(&lane->queue);
		spin_lock_irqsave(&lane->lock, flags);
		list_for_each_entry(slot, &lane->posted, link) {
			unmap(far, slot, slot->count);
			farmem_add(far->device, FARMEM_C_REPEATED, 1);
		}
		/* In front: they are the older ones. */
		list_splice_init(&lane->posted, &lane->parked);
		spin_unlock_irqrestore(&lane->lock, flags);
		rdma_queue_release(&lane->queue);
	}
	rdma_arm(far);
}

static void init(struct rdma_far *far, struct rdma_lane *lane, u16 number)
{
	spin_lock_init(&lane->lock);
	spin_lock_init(&lane->poll_lock);
	lane->far = far;
	sema_init(&lane->room, far->slots);
	INIT_LIST_HEAD(&lane->free);
	INIT_LIST_HEAD(&lane->parked);
	INIT_LIST_HEAD(&lane->posted);
	lane->queue.far = far;
	lane->queue.number = number;
	lane->polled = number > 2 * far->fan;
}

static int fill(struct rdma_far *far, struct rdma_lane *lane)
{
	u32 i;

	lane->slots = kvcalloc(far->slots, sizeof(*lane->slots), GFP_KERNEL);
	if (!lane->slots)
		return -ENOMEM;
	for (i = 0; i < far->slots; i++) {
		lane->slots[i].lane = lane;
		list_add_tail(&lane->slots[i].link, &lane->free);
	}
	return 0;
}

/* As many as the server and the processors are good for. */
int rdma_lanes_create(struct rdma_far *far)
{
	unsigned int kinds = far->poll ? 3 : 2;
	unsigned int queues = le16_to_cpu(far->lease_info.queues_max);
	unsigned int i, lanes;
	int error = 0;

	if (far->queues_wanted)
		queues = min_t(unsigned int, queues, far->queues_wanted);
	far->problem = "farmem: the server or the attach allows too few queues";
	/* A single queue serves both directions. */
	if (queues < kinds && (queues > 1 || far->poll))
		return -EUSERS;
	far->fan = clamp_t(unsigned int, queues / kinds, 1, nr_cpu_ids);
	far->slots = far->synchronous ? 1 : RDMA_SLOTS;
	far->pages_max = far->synchronous ? 1 :
		clamp_t(u32, min(far->ibdev->attrs.max_send_sge,
				 far->ibdev->attrs.max_sge_rd ?: far->ibdev->attrs.max_send_sge),
			1, RDMA_PAGES_MAX);
	far->problem = "farmem: not enough memory for the queues";
	lanes = queues < kinds ? 1 : far->fan * kinds;
	far->lanes = kvcalloc(lanes, sizeof(*far->lanes), GFP_KERNEL);
	if (!far->lanes)
		return -ENOMEM;
	for (i = 0; i < lanes; i++)
		init(far, &far->lanes[i], i + 1);
	far->lane_count = lanes;
	for (i = 0; i < lanes && !error; i++)
		error = fill(far, &far->lanes[i]);
	return error;
}

void rdma_lanes_destroy(struct rdma_far *far)
{
	unsigned int i;

	for (i = 0; far->lanes && i < far->lane_count; i++)
		kvfree(far->lanes[i].slots);
	kvfree(far->lanes);
}
