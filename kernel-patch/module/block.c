// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: the block frontend, /dev/farmemN on a stock kernel.
 *
 * A disk of 4 KiB blocks to swap on. It takes bios as they are, without a queue
 * of requests: merging and scheduling are of no use to memory. The kernel's
 * word that a swap slot is free goes to the backend at once, without waiting
 * for a discard of a whole cluster.
 */
#include <linux/bio.h>
#include <linux/bits.h>
#include <linux/blkdev.h>
#include <linux/idr.h>
#include <linux/mempool.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "farmem.h"

#define SECTORS_SHIFT	(PAGE_SHIFT - SECTOR_SHIFT)
#define SECTORS		BIT(SECTORS_SHIFT)

struct block_io {
	struct farmem_io io;
	struct bio *bio;
};

static DEFINE_IDA(numbers);
static struct kmem_cache *io_cache;
/*
 * Reclaim waits for its writes, so a request is never refused for want of
 * memory: one of these is free as soon as another request ends.
 */
static mempool_t *io_pool;

static void block_complete(struct farmem_io *io, int error)
{
	struct block_io *block = container_of(io, struct block_io, io);
	struct bio *bio = block->bio;

	mempool_free(block, io_pool);
	bio->bi_status = errno_to_blk_status(error);
	bio_endio(bio);
}

static bool whole_pages(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec segment;

	bio_for_each_segment(segment, bio, iter)
		if (segment.bv_offset || segment.bv_len != PAGE_SIZE)
			return false;
	return true;
}

static void refuse(struct bio *bio, struct farmem_device *device,
		   enum farmem_counter cause, int error)
{
	farmem_add(device, cause, 1);
	bio->bi_status = errno_to_blk_status(error);
	bio_endio(bio);
}

static void block_submit(struct bio *bio)
{
	struct farmem_device *device = bio->bi_bdev->bd_disk->private_data;
	sector_t sector = bio->bi_iter.bi_sector;
	u32 count = bio->bi_iter.bi_size >> PAGE_SHIFT;
	u64 first = sector >> SECTORS_SHIFT;
	struct block_io *block;
	int error;

	if (sector % SECTORS || bio->bi_iter.bi_size % PAGE_SIZE) {
		refuse(bio, device, FARMEM_C_REJECTED_ALIGNMENT, -EIO);
		return;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		break;
	case REQ_OP_DISCARD:
		error = farmem_discard(device, first, count, FARMEM_C_PAGES_DISCARDED);
		bio->bi_status = errno_to_blk_status(error);
		bio_endio(bio);
		return;
	default:
		refuse(bio, device, FARMEM_C_REJECTED_OPERATION, -EOPNOTSUPP);
		return;
	}
	if (!whole_pages(bio)) {
		refuse(bio, device, FARMEM_C_REJECTED_ALIGNMENT, -EIO);
		return;
	}

	block = mempool_alloc(io_pool, GFP_NOIO);
	block->bio = bio;
	block->io = (struct farmem_io) {
		.direction = op_is_write(bio_op(bio)) ? FARMEM_WRITE : FARMEM_READ,
		.first = first,
		.count = count,
		.vecs = bio->bi_io_vec,
		.iter = bio->bi_iter,
		.complete = block_complete,
		.plugged = true,
	};
	farmem_submit(device, &block->io);
}

/* Under the spinlock of the kernel's swap. */
static void block_slot_free(struct block_device *bdev, unsigned long index)
{
	farmem_discard(bdev->bd_disk->private_data, index, 1, FARMEM_C_SLOTS_FREED);
}

/* Under the disk's open_mutex, like the check in farmem_disk_remove(). */
static int open_disk(struct gendisk *disk)
{
	struct farmem_device *device = disk->private_data;

	return device->closing ? -ENXIO : 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static int block_open(struct gendisk *disk, blk_mode_t mode)
{
	return open_disk(disk);
}

static struct gendisk *new_disk(void)
{
	struct queue_limits limits = {
		.logical_block_size = PAGE_SIZE,
		.physical_block_size = PAGE_SIZE,
		.io_min = PAGE_SIZE,
		.dma_alignment = PAGE_SIZE - 1,
		.max_hw_discard_sectors = round_down(UINT_MAX, SECTORS),
		.discard_granularity = PAGE_SIZE,
	};

	return blk_alloc_disk(&limits, NUMA_NO_NODE);
}
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
static int block_open(struct block_device *bdev, fmode_t mode)
{
	return open_disk(bdev->bd_disk);
}

static struct gendisk *new_disk(void)
{
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);
	struct request_queue *queue;

	if (!disk)
		return ERR_PTR(-ENOMEM);
	queue = disk->queue;
	blk_queue_logical_block_size(queue, PAGE_SIZE);
	blk_queue_physical_block_size(queue, PAGE_SIZE);
	blk_queue_io_min(queue, PAGE_SIZE);
	blk_queue_dma_alignment(queue, PAGE_SIZE - 1);
	blk_queue_max_discard_sectors(queue, round_down(UINT_MAX, SECTORS));
	queue->limits.discard_granularity = PAGE_SIZE;
	blk_queue_flag_set(QUEUE_FLAG_NONROT, queue);
	blk_queue_flag_clear(QUEUE_FLAG_ADD_RANDOM, queue);
	return disk;
}
#else
#error "farmem.ko is for Linux 6.1 and for 6.11 and later"
#endif

/*
 * There is no rw_page and no BLK_FEAT_SYNCHRONOUS: with either the kernel's
 * swap skips readahead and the swap cache, which is right for no backend whose
 * pages have to travel.
 */
static const struct block_device_operations block_operations = {
	.owner = THIS_MODULE,
	.submit_bio = block_submit,
	.open = block_open,
	.swap_slot_free_notify = block_slot_free,
};

int farmem_disk_add(struct farmem_device *device)
{
	struct gendisk *disk;
	int error;

	device->number = ida_alloc(&numbers, GFP_KERNEL);
	if (device->number < 0)
		return device->number;
	disk = new_disk();
	if (IS_ERR(disk)) {
		error = PTR_ERR(disk);
		goto free_number;
	}
	device->disk = disk;
	disk->fops = &block_operations;
	disk->private_data = device;
	disk->flags |= GENHD_FL_NO_PART;
	snprintf(disk->disk_name, sizeof(disk->disk_name), "farmem%d", device->number);
	set_capacity(disk, device->size << SECTORS_SHIFT);
	error = add_disk(disk);
	if (!error)
		return 0;
	put_disk(disk);
free_number:
	ida_free(&numbers, device->number);
	return error;
}

int farmem_disk_remove(struct farmem_device *device)
{
	struct gendisk *disk = device->disk;

	mutex_lock(&disk->open_mutex);
	if (disk_openers(disk)) {
		mutex_unlock(&disk->open_mutex);
		return -EBUSY;
	}
	device->closing = true;
	mutex_unlock(&disk->open_mutex);
	del_gendisk(disk);
	put_disk(disk);
	ida_free(&numbers, device->number);
	return 0;
}

int farmem_block_init(void)
{
	io_cache = KMEM_CACHE(block_io, 0);
	if (!io_cache)
		return -ENOMEM;
	io_pool = mempool_create_slab_pool(64, io_cache);
	if (io_pool)
		return 0;
	kmem_cache_destroy(io_cache);
	return -ENOMEM;
}

void farmem_block_exit(void)
{
	mempool_destroy(io_pool);
	kmem_cache_destroy(io_cache);
}
