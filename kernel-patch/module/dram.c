// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: the backend dram keeps pages in this host's own memory.
 *
 * It is for tests, for measuring what the way to a backend costs, and for
 * memory that is on this host but far.
 *
 * Memory while memory is short. A write comes mostly from reclaim, which wants
 * a page back and here needs one first:
 * - GFP_NOIO, so that getting it starts no other write, to this device or any.
 * - Not __GFP_MEMALLOC but its opposite: reclaim runs with PF_MEMALLOC, which
 *   opens the last reserves, and a swap device that grows from those would
 *   leave none for the writes to disks and over networks that really free
 *   memory. With __GFP_NOMEMALLOC the write fails instead, and the kernel
 *   keeps the page where it is.
 * - No retries and no warning: a failed write is part of the contract.
 * So where a cgroup is over its limit and the host has memory, writes succeed;
 * where the host itself has none, only a device attached with RESERVE takes
 * pages, as it allocates its whole capacity at attach and nothing later. The
 * table below is allocated at attach too, so reads and discards need no memory.
 */
#include <linux/bitops.h>
#include <linux/gfp.h>
#include <linux/hash.h>
#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

#include "farmem.h"

#define LOCK_BITS 8

struct dram {
	/*
	 * Entry i of @pages is under @locks[hash(i)], also while bytes are
	 * copied: so a page is never freed under a copy, and is read whole.
	 */
	spinlock_t locks[1 << LOCK_BITS];
	atomic64_t used;
	spinlock_t reserved_lock;	/* the list below */
	struct list_head reserved;
	struct page *pages[];
};

static spinlock_t *lock_of(struct dram *dram, u64 index)
{
	return &dram->locks[hash_64(index, LOCK_BITS)];
}

/* A page to hold one more, or an ERR_PTR. */
static struct page *take_page(struct farmem_device *device)
{
	struct dram *dram = device->backend_data;
	struct page *page;

	if (!atomic64_add_unless(&dram->used, 1, device->capacity))
		return ERR_PTR(-ENOSPC);
	if (device->reserve) {
		spin_lock(&dram->reserved_lock);
		page = list_first_entry(&dram->reserved, struct page, lru);
		list_del(&page->lru);
		spin_unlock(&dram->reserved_lock);
		return page;
	}
	page = alloc_page(GFP_NOIO | __GFP_HIGHMEM | __GFP_NOMEMALLOC |
			  __GFP_NORETRY | __GFP_NOWARN);
	if (page)
		return page;
	atomic64_dec(&dram->used);
	return ERR_PTR(-ENOMEM);
}

/* After it is out of the table. Does not sleep. */
static void give_page(struct farmem_device *device, struct page *page)
{
	struct dram *dram = device->backend_data;

	if (device->reserve) {
		spin_lock(&dram->reserved_lock);
		list_add(&page->lru, &dram->reserved);
		spin_unlock(&dram->reserved_lock);
	} else {
		__free_page(page);
	}
	/* Last: whoever counts himself in finds a reserved page. */
	smp_mb__before_atomic();
	atomic64_dec(&dram->used);
}

static int write_page(struct farmem_device *device, u64 index, struct page *from)
{
	struct dram *dram = device->backend_data;
	spinlock_t *lock = lock_of(dram, index);
	struct page *spare = NULL;

	spin_lock(lock);
	if (!dram->pages[index]) {
		spin_unlock(lock);
		spare = take_page(device);
		if (IS_ERR(spare))
			return PTR_ERR(spare);
		spin_lock(lock);
		if (!dram->pages[index]) {
			dram->pages[index] = spare;
			spare = NULL;
		}
	}
	copy_highpage(dram->pages[index], from);
	spin_unlock(lock);
	if (spare)
		give_page(device, spare);
	return 0;
}

static void read_page(struct farmem_device *device, u64 index, struct page *to)
{
	struct dram *dram = device->backend_data;
	spinlock_t *lock = lock_of(dram, index);

	spin_lock(lock);
	if (dram->pages[index])
		copy_highpage(to, dram->pages[index]);
	else
		clear_highpage(to);
	spin_unlock(lock);
	flush_dcache_page(to);
}

static void dram_submit(struct farmem_io *io)
{
	struct farmem_device *device = io->device;
	u64 index = io->first;
	struct bvec_iter iter;
	struct bio_vec segment;
	int error = 0;

	for_each_bvec(segment, io->vecs, iter, io->iter) {
		if (io->direction == FARMEM_READ)
			read_page(device, index, segment.bv_page);
		else
			error = write_page(device, index, segment.bv_page);
		if (error)
			break;
		index++;
	}
	farmem_end_io(io, error);
}

static void dram_discard(struct farmem_device *device, u64 first, u32 count)
{
	struct dram *dram = device->backend_data;
	u64 index;

	for (index = first; index < first + count; index++) {
		spinlock_t *lock = lock_of(dram, index);
		struct page *page;

		spin_lock(lock);
		page = dram->pages[index];
		dram->pages[index] = NULL;
		spin_unlock(lock);
		if (page)
			give_page(device, page);
	}
}

static u64 dram_used(struct farmem_device *device)
{
	struct dram *dram = device->backend_data;

	return atomic64_read(&dram->used);
}

static void dram_detach(struct farmem_device *device)
{
	struct dram *dram = device->backend_data;
	struct page *page, *next;
	u64 index;

	for (index = 0; index < device->size; index++) {
		if (dram->pages[index])
			__free_page(dram->pages[index]);
		if (!(index % 4096))
			cond_resched();
	}
	list_for_each_entry_safe(page, next, &dram->reserved, lru)
		__free_page(page);
	vfree(dram);
	device->backend_data = NULL;
}

static int dram_attach(struct farmem_device *device, struct farmem_options *options)
{
	size_t bytes;
	struct dram *dram;
	u64 index;
	int i;

	if (device->size > SIZE_MAX / sizeof(struct page *))
		return -EFBIG;
	bytes = struct_size(dram, pages, device->size);
	/* 2 MiB for each GiB; asked for politely, as its size is the caller's choice. */
	dram = __vmalloc(bytes, GFP_KERNEL | __GFP_ZERO | __GFP_RETRY_MAYFAIL |
			 __GFP_NOWARN);
	if (!dram)
		return -ENOMEM;
	for (i = 0; i < 1 << LOCK_BITS; i++)
		spin_lock_init(&dram->locks[i]);
	spin_lock_init(&dram->reserved_lock);
	INIT_LIST_HEAD(&dram->reserved);
	device->backend_data = dram;
	for (index = 0; device->reserve && index < device->capacity; index++) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_HIGHMEM |
					       __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
		int error = !page ? -ENOMEM : fatal_signal_pending(current) ? -EINTR : 0;

		if (page)
			list_add(&page->lru, &dram->reserved);
		if (error) {
			dram_detach(device);
			return error;
		}
		cond_resched();
	}
	return 0;
}

const struct farmem_backend farmem_dram = {
	.name = "dram",
	.attach = dram_attach,
	.detach = dram_detach,
	.submit = dram_submit,
	.discard = dram_discard,
	.used = dram_used,
};
