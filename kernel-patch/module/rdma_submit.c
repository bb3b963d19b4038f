// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: from requests to slots.
 *
 * Neighbouring pages share a work request, also those of several requests that
 * come under one plug (as reclaim writes them, and read-ahead reads them); but
 * a page that a fault waits for is read alone. All slots of a batch are posted
 * with one doorbell.
 *
 * Nothing here needs memory: when all slots of a lane are taken the submitter
 * waits for one, until its deadline. (A plug's few bytes are not needed.)
 */
#include <linux/highmem.h>
#include <linux/smp.h>

#include "rdma.h"

struct rdma_plug {
	struct blk_plug_cb cb;
	struct rdma_batch batch;
};

/* A request on its way into slots. */
struct rdma_request {
	struct rdma_far *far;
	struct farmem_io *io;
	struct rdma_batch *batch;	/* @own, or a plug's */
	struct rdma_batch own;
	unsigned long deadline;		/* jiffies */
	bool *ended;
};

static void batch_init(struct rdma_batch *batch, struct rdma_far *far)
{
	batch->far = far;
	batch->lane = NULL;
	batch->open = NULL;
	INIT_LIST_HEAD(&batch->slots);
}

static void put_slot(struct rdma_slot *slot)
{
	struct rdma_lane *lane = slot->lane;
	unsigned long flags;

	spin_lock_irqsave(&lane->lock, flags);
	list_add(&slot->link, &lane->free);
	spin_unlock_irqrestore(&lane->lock, flags);
	up(&lane->room);
}

static bool touches(struct rdma_far *far, struct rdma_slot *slot, struct rdma_slot *next)
{
	return slot->slab == next->slab && slot->first + slot->count == next->first &&
		slot->count + next->count <= far->pages_max;
}

/* Puts the pages of @next to those of @slot. */
static void join(struct rdma_slot *slot, struct rdma_slot *next)
{
	unsigned long flags;

	memcpy(slot->pages + slot->count, next->pages, next->count * sizeof(next->pages[0]));
	memcpy(slot->ios + slot->count, next->ios, next->count * sizeof(next->ios[0]));
	slot->count += next->count;
	/* The other one still keeps the slab. */
	spin_lock_irqsave(&slot->slab->lock, flags);
	slot->slab->busy--;
	spin_unlock_irqrestore(&slot->slab->lock, flags);
	list_del(&next->link);
	put_slot(next);
}

static bool read_ahead(struct rdma_slot *slot)
{
	return folio_test_readahead(page_folio(slot->pages[0]));
}

/*
 * Reads that came under one plug are a page that somebody waits for and those
 * around it, which by now are marked as read ahead; or all are prefetched. So
 * the one page goes first and alone, and the others share work requests.
 */
static void sort_reads(struct rdma_batch *batch)
{
	struct rdma_slot *slot, *next, *last = NULL;
	unsigned int awaited = 0;

	list_for_each_entry(slot, &batch->slots, link)
		awaited += !read_ahead(slot);
	list_for_each_entry_safe(slot, next, &batch->slots, link) {
		if (awaited == 1 && !read_ahead(slot))
			list_move(&slot->link, &batch->slots);
		else if (last && touches(batch->far, last, slot))
			join(last, slot);
		else
			last = slot;
	}
}

static void batch_issue(struct rdma_batch *batch)
{
	batch->open = NULL;
	if (list_empty(&batch->slots))
		return;
	if (!list_is_singular(&batch->slots) &&
	    list_first_entry(&batch->slots, struct rdma_slot, link)->direction == FARMEM_READ)
		sort_reads(batch);
	rdma_lane_issue(batch->lane, &batch->slots);
}

/* May run when the task goes to sleep: so it does not. */
static void unplug(struct blk_plug_cb *cb, bool from_schedule)
{
	struct rdma_plug *plug = container_of(cb, struct rdma_plug, cb);

	batch_issue(&plug->batch);
	kfree(plug);
}

/* Of a disk one page is a fault's, for all that is known of it here. */
static bool is_polled(struct rdma_far *far, struct farmem_io *io)
{
	return far->poll && io->direction == FARMEM_READ &&
		(io->device->area ? io->fault : io->count == 1);
}

static struct rdma_lane *lane_for(struct rdma_far *far, struct farmem_io *io)
{
	unsigned int kind = io->direction == FARMEM_WRITE ? 1 :
		is_polled(far, io) ? 2 : 0;
	unsigned int lane = kind * far->fan + raw_smp_processor_id() % far->fan;

	/* Any number of processors, and any set of them, for they come and go. */
	return &far->lanes[lane % far->lane_count];
}

static unsigned long deadline_of(struct rdma_far *far, struct farmem_io *io)
{
	return jiffies + msecs_to_jiffies(io->direction == FARMEM_READ ?
					  far->read_ms : far->write_ms);
}

static struct rdma_slot *take_slot(struct rdma_request *request)
{
	struct rdma_far *far = request->far;
	struct rdma_lane *lane = lane_for(far, request->io);
	struct rdma_slot *slot;
	unsigned long flags;

	if (lane != request->batch->lane)
		batch_issue(request->batch);
	request->batch->lane = lane;
	if (down_trylock(&lane->room)) {
		batch_issue(request->batch);
		/* Sleeping ends the plug, and its batch with it. */
		request->batch = &request->own;
		request->batch->lane = lane;
		if (down_timeout(&lane->room, max_t(long, request->deadline - jiffies, 0)))
			return NULL;
	}
	spin_lock_irqsave(&lane->lock, flags);
	slot = list_first_entry(&lane->free, struct rdma_slot, link);
	list_del_init(&slot->link);
	spin_unlock_irqrestore(&lane->lock, flags);
	slot->ended = NULL;
	slot->count = 0;
	return slot;
}

/* False when the page is not there, so reads as zeros. A write counts as there. */
static bool claim(struct rdma_far *far, struct rdma_slab *slab, u64 page,
		  enum farmem_direction direction, u32 busy)
{
	unsigned long flags;
	bool there;

	spin_lock_irqsave(&slab->lock, flags);
	there = direction == FARMEM_WRITE || test_bit(page, far->present);
	if (there)
		slab->busy += busy;
	spin_unlock_irqrestore(&slab->lock, flags);
	return there;
}

static void add_part(struct rdma_slot *slot, struct farmem_io *io, struct page *page)
{
	atomic_inc(&io->parts);
	slot->pages[slot->count] = page;
	slot->ios[slot->count] = io;
	slot->count++;
}

static bool fits(struct rdma_batch *batch, struct rdma_slab *slab, struct farmem_io *io,
		 u64 page)
{
	struct rdma_slot *slot = batch->open;

	return slot && slot->direction == io->direction && slot->slab == slab &&
		slot->first + slot->count == page &&
		slot->count < batch->far->pages_max &&
		(io->direction == FARMEM_WRITE || slot->ios[0] == io);
}

static void zero(struct page *page)
{
	clear_highpage(page);
	flush_dcache_page(page);
}

/* The one page that is under way is done. */
static void await_lane(struct rdma_lane *lane)
{
	down(&lane->room);
	up(&lane->room);
}

/* One page of a request: zeros, or a part in some slot; else why it failed. */
static int add_page(struct rdma_request *request, u64 number, struct page *page)
{
	struct rdma_far *far = request->far;
	struct farmem_io *io = request->io;
	struct rdma_slab *slab = &far->slabs[number >> far->slab_shift];
	struct rdma_slot *slot;

	if (!claim(far, slab, number, io->direction, 0)) {
		zero(page);
		return 0;
	}
	if (READ_ONCE(far->state) == RDMA_LOST)
		return -ENODATA;
	if (fits(request->batch, slab, io, number)) {
		add_part(request->batch->open, io, page);
		return 0;
	}
	slot = take_slot(request);
	if (!slot)
		return -ETIMEDOUT;
	/* From here on the slab stays; while this waited the page may have gone. */
	if (!claim(far, slab, number, io->direction, 1)) {
		put_slot(slot);
		zero(page);
		return 0;
	}
	slot->slab = slab;
	slot->direction = io->direction;
	slot->first = number;
	slot->deadline = request->deadline;
	slot->ended = request->ended;
	add_part(slot, io, page);
	list_add_tail(&slot->link, &request->batch->slots);
	request->batch->open = slot;
	return 0;
}

static struct rdma_batch *plugged_batch(struct rdma_far *far)
{
	struct blk_plug_cb *cb = blk_check_plugged(unplug, far, sizeof(struct rdma_plug));
	struct rdma_plug *plug;

	if (!cb)
		return NULL;
	plug = container_of(cb, struct rdma_plug, cb);
	if (!plug->batch.far)
		batch_init(&plug->batch, far);
	return &plug->batch;
}

void rdma_submit(struct farmem_io *io)
{
	struct rdma_far *far = io->device->backend_data;
	struct rdma_request request = {
		.far = far,
		.io = io,
		.deadline = deadline_of(far, io),
	};
	bool polled = is_polled(far, io);
	bool synchronous = far->synchronous, ended = false, posted;
	u64 number = io->first;
	struct bvec_iter iter;
	struct bio_vec segment;
	int error = 0;

	atomic_set(&io->parts, 1);
	io->error = 0;
	batch_init(&request.own, far);
	if (io->plugged && !polled && !synchronous)
		request.batch = plugged_batch(far);
	if (!request.batch)
		request.batch = &request.own;
	if (polled)
		request.ended = &ended;
	for_each_bvec(segment, io->vecs, iter, io->iter) {
		error = add_page(&request, number++, segment.bv_page);
		if (error)
			break;
	}
	posted = !list_empty(&request.own.slots);
	batch_issue(&request.own);
	/* From here on the request may be gone. */
	rdma_part_end(io, error);
	if (polled && posted)
		rdma_poll(request.own.lane, &ended);
	else if (synchronous && posted)
		await_lane(request.own.lane);
}
