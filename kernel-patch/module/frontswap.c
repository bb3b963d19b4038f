// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: the frontswap frontend, for Linux 6.1 with the patches beside this
 * directory.
 *
 * A device serves one swap area, any disk or file that is swapped on: it keeps
 * the area's pages, and those that it does not take are on the area itself. So
 * a page takes no block layer, and a full or lost far memory costs nothing but
 * the speed of a disk.
 */
#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/swap.h>
#ifdef CONFIG_FRONTSWAP
#include <linux/frontswap.h>
#endif

#include "farmem.h"

#ifdef FRONTSWAP_MODULES

/* How long a fault spins for its page before it sleeps: some round trips. */
#define POLL_NS (50 * NSEC_PER_USEC)

/* Requests that have memory when there is none. */
#define POOL_SIZE 64

/**
 * struct farmem_area - the swap area of a device
 * @device: whose
 * @link: in @areas
 * @path: as it was named at attach
 * @dev: the disk, or the file system of the file
 * @inode: the file's number, or 0 for a disk
 * @type: the kernel's number of it while it is swapped on, or -1
 */
struct farmem_area {
	struct farmem_device *device;
	struct list_head link;
	const char *path;
	dev_t dev;
	unsigned long inode;
	int type;
};

enum state { SUBMITTED, RETURNED, ENDED };

struct swap_io {
	struct farmem_io io;
	struct bio_vec vec;
	struct page *page;
	mempool_t *pool;
	atomic_t state;
	int result;
};

/*
 * The areas and their types; inside of swapon_mutex, so nothing that waits for
 * a swapon may be done under it.
 */
static DEFINE_MUTEX(areas_mutex);
static LIST_HEAD(areas);
/* Set before the kernel sends the first page, and cleared after the last. */
static struct farmem_device *served[MAX_SWAPFILES];

static struct kmem_cache *io_cache;
/* Two, so that no load waits for a store that waits for memory. */
static mempool_t *loads, *stores;

/* The answer for the kernel. -ENOENT would send it to the disk for the page. */
static int result_of(int error)
{
	return error ? -EIO : 0;
}

static void swap_complete(struct farmem_io *io, int error)
{
	struct swap_io *swap = container_of(io, struct swap_io, io);
	bool loading = io->direction == FARMEM_READ;
	struct page *page = swap->page;

	swap->result = result_of(error);
	/* Whoever comes second, this or the return of submit(), has it to end. */
	if (atomic_xchg(&swap->state, ENDED) != RETURNED)
		return;
	mempool_free(swap, swap->pool);
	if (loading)
		frontswap_load_done(page, result_of(error));
	else
		frontswap_store_done(page, result_of(error));
}

static int submit(struct farmem_device *device, pgoff_t offset, struct page *page,
		  enum farmem_direction direction, bool fault)
{
	mempool_t *pool = direction == FARMEM_READ ? loads : stores;
	struct swap_io *swap = mempool_alloc(pool, GFP_NOIO);
	int result;

	*swap = (struct swap_io) {
		.vec = { .bv_page = page, .bv_len = PAGE_SIZE },
		.page = page,
		.pool = pool,
		.state = ATOMIC_INIT(SUBMITTED),
	};
	swap->io = (struct farmem_io) {
		.direction = direction,
		.first = offset,
		.count = 1,
		.vecs = &swap->vec,
		.iter = { .bi_size = PAGE_SIZE },
		.complete = swap_complete,
		.plugged = !fault,
		.fault = fault,
	};
	farmem_submit(device, &swap->io);
	if (atomic_xchg(&swap->state, RETURNED) != ENDED)
		return FRONTSWAP_IN_FLIGHT;
	result = swap->result;
	mempool_free(swap, pool);
	return result;
}

static int area_store(unsigned int type, pgoff_t offset, struct page *page)
{
	/* One that got its slots before the area was this module's to split for. */
	if (PageTransHuge(page))
		return -EINVAL;
	return submit(served[type], offset, page, FARMEM_WRITE, false);
}

static int area_load(unsigned int type, pgoff_t offset, struct page *page, bool fault)
{
	if (fault)
		farmem_add(served[type], FARMEM_C_FAULTS, 1);
	return submit(served[type], offset, page, FARMEM_READ, fault);
}

static void area_poll(unsigned int type, pgoff_t offset, struct page *page)
{
	struct farmem_device *device = served[type];
	u64 end = ktime_get_ns() + POLL_NS;

	/* A backend that looks for completions itself has done so before this. */
	if (!device->poll)
		return;
	farmem_add(device, FARMEM_C_POLLS, 1);
	while (PageLocked(page) && !need_resched() && ktime_get_ns() < end)
		cpu_relax();
}

/* Under the spinlock of the kernel's swap. */
static void area_invalidate_page(unsigned int type, pgoff_t offset)
{
	farmem_discard(served[type], offset, 1, FARMEM_C_SLOTS_FREED);
}

/* Nothing of the area runs or comes any more. */
static void area_invalidate(unsigned int type)
{
	struct farmem_device *device = served[type];

	farmem_discard(device, 0, device->size, FARMEM_C_PAGES_DISCARDED);
	mutex_lock(&areas_mutex);
	served[type] = NULL;
	device->area->type = -1;
	mutex_unlock(&areas_mutex);
}

static void identify(struct inode *inode, dev_t *dev, unsigned long *number)
{
	bool disk = S_ISBLK(inode->i_mode);

	*dev = disk ? I_BDEV(inode)->bd_dev : inode->i_sb->s_dev;
	*number = disk ? 0 : inode->i_ino;
}

/* With areas_mutex. */
static struct farmem_area *find_area(dev_t dev, unsigned long inode)
{
	struct farmem_area *area;

	list_for_each_entry(area, &areas, link)
		if (area->dev == dev && area->inode == inode)
			return area;
	return NULL;
}

static int area_init(struct swap_info_struct *info)
{
	struct farmem_area *area;
	unsigned long inode;
	dev_t dev;

	identify(info->swap_file->f_mapping->host, &dev, &inode);
	mutex_lock(&areas_mutex);
	area = find_area(dev, inode);
	if (area && area->type < 0) {
		area->type = info->type;
		served[info->type] = area->device;
	} else {
		area = NULL;
	}
	mutex_unlock(&areas_mutex);
	return area ? 0 : -ENODEV;
}

static struct frontswap_ops operations = {
	.owner = THIS_MODULE,
	.split_huge = true,
	.init = area_init,
	.store = area_store,
	.load = area_load,
	.poll = area_poll,
	.invalidate_page = area_invalidate_page,
	.invalidate_area = area_invalidate,
};

/* What swapon will see of @path, and whether it can be swapped on at all. */
static int look_at(struct farmem_area *area, struct farmem_options *options)
{
	struct file *file = NULL;
	struct inode *inode;
	struct path path;
	int error;

	/* First without opening, as to open what is not a disk or a file can hang. */
	error = kern_path(area->path, LOOKUP_FOLLOW, &path);
	if (!error) {
		inode = d_backing_inode(path.dentry);
		if (!S_ISBLK(inode->i_mode) && !S_ISREG(inode->i_mode))
			error = -EINVAL;
		else
			file = dentry_open(&path, O_RDONLY | O_LARGEFILE, current_cred());
		path_put(&path);
		if (IS_ERR(file))
			error = PTR_ERR(file);
	}
	if (error) {
		options->problem = "farmem: a swap area is a disk or a file";
		/* ENOENT is the answer for a backend. */
		return error == -ENOENT ? -ENXIO : error;
	}
	inode = file->f_mapping->host;
	identify(inode, &area->dev, &area->inode);
	if (IS_SWAPFILE(inode)) {
		options->problem = "farmem: swap is on there: swapoff it first";
		error = -EBUSY;
	}
	fput(file);
	return error;
}

/* What can be refused before the backend does anything. */
int farmem_area_check(struct farmem_options *options)
{
	struct farmem_area area = { .path = options->area };

	return look_at(&area, options);
}

int farmem_area_add(struct farmem_device *device, struct farmem_options *options)
{
	struct farmem_area *area = kzalloc(sizeof(*area), GFP_KERNEL);
	int error = -ENOMEM;

	if (!area)
		return error;
	area->device = device;
	area->type = -1;
	area->path = kstrdup(options->area, GFP_KERNEL);
	if (!area->path)
		goto free;
	error = look_at(area, options);
	if (error)
		goto free;
	device->area = area;
	mutex_lock(&areas_mutex);
	if (find_area(area->dev, area->inode)) {
		options->problem = "farmem: another device has this area";
		error = -EBUSY;
	} else {
		list_add_tail(&area->link, &areas);
	}
	mutex_unlock(&areas_mutex);
	if (!error)
		return 0;
	device->area = NULL;
free:
	kfree(area->path);
	kfree(area);
	return error;
}

int farmem_area_remove(struct farmem_device *device)
{
	struct farmem_area *area = device->area;

	mutex_lock(&areas_mutex);
	if (area->type >= 0) {
		mutex_unlock(&areas_mutex);
		return -EBUSY;
	}
	list_del(&area->link);
	mutex_unlock(&areas_mutex);
	kfree(area->path);
	kfree(area);
	return 0;
}

const char *farmem_area_path(struct farmem_device *device)
{
	return device->area->path;
}

bool farmem_area_used(struct farmem_device *device)
{
	return READ_ONCE(device->area->type) >= 0;
}

int farmem_frontswap_init(void)
{
	io_cache = KMEM_CACHE(swap_io, 0);
	loads = mempool_create_slab_pool(POOL_SIZE, io_cache);
	stores = mempool_create_slab_pool(POOL_SIZE, io_cache);
	if (io_cache && loads && stores) {
		frontswap_register_ops(&operations);
		return 0;
	}
	mempool_destroy(stores);
	mempool_destroy(loads);
	kmem_cache_destroy(io_cache);
	return -ENOMEM;
}

void farmem_frontswap_exit(void)
{
	/* An area would hold the module. */
	WARN_ON(frontswap_unregister_ops(&operations));
	mempool_destroy(stores);
	mempool_destroy(loads);
	kmem_cache_destroy(io_cache);
}

#else /* FRONTSWAP_MODULES */

int farmem_area_check(struct farmem_options *options)
{
	options->problem = "farmem: frontswap is for Linux 6.1 with our patches";
	return -EOPNOTSUPP;
}

int farmem_area_add(struct farmem_device *device, struct farmem_options *options)
{
	return -EOPNOTSUPP;
}

int farmem_area_remove(struct farmem_device *device)
{
	return 0;
}

const char *farmem_area_path(struct farmem_device *device)
{
	return "";
}

bool farmem_area_used(struct farmem_device *device)
{
	return false;
}

int farmem_frontswap_init(void)
{
	return 0;
}

void farmem_frontswap_exit(void)
{
}

#endif /* FRONTSWAP_MODULES */
