// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: far memory for Linux. The core: devices, and the way of a request
 * from a frontend to a backend and back.
 *
 * The contract that all of it serves: a failed write is harmless, for the
 * kernel keeps the page, so writes fail at once; a failed read ends as a failed
 * read, never as a page that is said to be up to date.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "farmem.h"

/* Pages of a discard between two chances for others to run. */
#define DISCARD_BATCH 512

static unsigned int fail_reads;
module_param(fail_reads, uint, 0600);
MODULE_PARM_DESC(fail_reads, "For tests: every N-th read fails; 0 is none");

static unsigned int fail_writes;
module_param(fail_writes, uint, 0600);
MODULE_PARM_DESC(fail_writes, "For tests: every N-th write fails; 0 is none");

static unsigned int defer;
module_param(defer, uint, 0600);
MODULE_PARM_DESC(defer, "For tests: every N-th read or write is given to its backend later; 0 is none");

/* Attach and detach as a whole: they may wait for a server. */
DEFINE_MUTEX(farmem_mutex);
/* The list, for as long as it takes to change or to read it. */
DEFINE_MUTEX(farmem_list_mutex);
LIST_HEAD(farmem_devices);

static const struct farmem_backend *const backends[] = { &farmem_dram, &farmem_rdma };

struct farmem_device *farmem_find(const char *name)
{
	struct farmem_device *device;

	/* Who changes the list has both. */
	lockdep_assert(lockdep_is_held(&farmem_mutex) ||
		       lockdep_is_held(&farmem_list_mutex));
	list_for_each_entry(device, &farmem_devices, link)
		if (!strcmp(device->name, name))
			return device;
	return NULL;
}

u64 farmem_count(struct farmem_device *device, enum farmem_counter counter)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(device->counters, cpu)->of[counter];
	return sum;
}

/* How many requests took how long: farmem_uapi.h has the buckets. */
void farmem_latency(struct farmem_device *device, enum farmem_direction direction,
		    u64 buckets[FARMEM_LATENCY_BUCKETS])
{
	int cpu, i;

	memset(buckets, 0, sizeof(*buckets) * FARMEM_LATENCY_BUCKETS);
	for_each_possible_cpu(cpu)
		for (i = 0; i < FARMEM_LATENCY_BUCKETS; i++)
			buckets[i] += per_cpu_ptr(device->counters, cpu)->latency[direction][i];
}

static void count_latency(struct farmem_io *io)
{
	u64 us = div_u64(ktime_get_ns() - io->started, NSEC_PER_USEC);
	int bucket = min_t(int, us ? ilog2(us) + 1 : 0, FARMEM_LATENCY_BUCKETS - 1);

	this_cpu_inc(io->device->counters->latency[io->direction][bucket]);
}

static bool inside(struct farmem_device *device, u64 first, u64 count)
{
	return count <= device->size && first <= device->size - count;
}

static bool injected(struct farmem_io *io)
{
	static atomic_t turns = ATOMIC_INIT(0);
	unsigned int every = io->direction == FARMEM_READ ?
		READ_ONCE(fail_reads) : READ_ONCE(fail_writes);

	return every && !((unsigned int)atomic_inc_return(&turns) % every);
}

struct deferred {
	struct work_struct work;
	struct farmem_io *io;
};

static struct workqueue_struct *deferred_queue;

static void carry_out(struct farmem_io *io)
{
	if (injected(io)) {
		farmem_add(io->device, FARMEM_C_INJECTED, 1);
		farmem_end_io(io, -EIO);
	} else {
		io->device->backend->submit(io);
	}
}

static void submit_deferred(struct work_struct *work)
{
	struct deferred *deferred = container_of(work, struct deferred, work);
	struct farmem_io *io = deferred->io;

	kfree(deferred);
	carry_out(io);
}

/* Whether it was put off. */
static bool put_off(struct farmem_io *io)
{
	static atomic_t turns = ATOMIC_INIT(0);
	unsigned int every = READ_ONCE(defer);
	struct deferred *deferred;

	if (!every || (unsigned int)atomic_inc_return(&turns) % every)
		return false;
	deferred = kmalloc(sizeof(*deferred), GFP_NOIO | __GFP_NOWARN);
	if (!deferred)
		return false;
	farmem_add(io->device, FARMEM_C_DEFERRED, 1);
	deferred->io = io;
	INIT_WORK(&deferred->work, submit_deferred);
	queue_work(deferred_queue, &deferred->work);
	return true;
}

/**
 * farmem_submit() - start a read or write
 * @device: of which the caller knows that it is not freed, as it is open
 * @io: ends through its complete(), maybe before this returns
 */
void farmem_submit(struct farmem_device *device, struct farmem_io *io)
{
	io->device = device;
	io->started = ktime_get_ns();
	if (!inside(device, io->first, io->count)) {
		farmem_add(device, FARMEM_C_REJECTED_RANGE, 1);
		io->complete(io, -EIO);
	} else if (!percpu_ref_tryget_live(&device->requests)) {
		farmem_add(device, FARMEM_C_REJECTED_GONE, 1);
		io->complete(io, -ENODEV);
	} else if (!put_off(io)) {
		carry_out(io);
	}
}

/**
 * farmem_end_io() - a backend is done with a request
 * @io: not to be touched afterwards
 * @error: 0, or a negative errno when any page of it failed
 */
void farmem_end_io(struct farmem_io *io, int error)
{
	struct farmem_device *device = io->device;
	bool reading = io->direction == FARMEM_READ;

	/* What is not an errno is a backend's fault, and not success. */
	if (WARN_ON_ONCE(error > 0))
		error = -EIO;
	count_latency(io);
	if (!error)
		farmem_add(device, reading ? FARMEM_C_PAGES_READ :
			   FARMEM_C_PAGES_WRITTEN, io->count);
	else if (error == -ETIMEDOUT)
		farmem_add(device, reading ? FARMEM_C_READS_TIMED_OUT :
			   FARMEM_C_WRITES_TIMED_OUT, 1);
	else if (error == -ENODATA)
		farmem_add(device, reading ? FARMEM_C_READS_LOST :
			   FARMEM_C_REJECTED_LOST, 1);
	else if (!reading && error == -EDQUOT)
		farmem_add(device, FARMEM_C_REJECTED_SERVER, 1);
	else if (!reading && error == -ENOSPC)
		farmem_add(device, FARMEM_C_REJECTED_CAPACITY, 1);
	else if (!reading && error == -ENOMEM)
		farmem_add(device, FARMEM_C_REJECTED_MEMORY, 1);
	else
		farmem_add(device, reading ? FARMEM_C_READ_ERRORS :
			   FARMEM_C_WRITE_ERRORS, 1);
	io->complete(io, error);
	percpu_ref_put(&device->requests);
}

/**
 * farmem_discard() - let go of pages
 * @device: of which the caller knows that it is not freed
 * @first: the first page's number
 * @count: how many; more than one only where the caller may sleep
 * @counter: which to add the pages to
 *
 * Return: 0 or a negative errno.
 */
int farmem_discard(struct farmem_device *device, u64 first, u64 count,
		   enum farmem_counter counter)
{
	if (!inside(device, first, count)) {
		farmem_add(device, FARMEM_C_REJECTED_RANGE, 1);
		return -EIO;
	}
	if (!percpu_ref_tryget_live(&device->requests)) {
		farmem_add(device, FARMEM_C_REJECTED_GONE, 1);
		return -ENODEV;
	}
	farmem_add(device, counter, count);
	while (count) {
		u32 batch = min_t(u64, count, DISCARD_BATCH);

		device->backend->discard(device, first, batch);
		first += batch;
		count -= batch;
		if (count)
			cond_resched();
	}
	percpu_ref_put(&device->requests);
	return 0;
}

static void drained(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct farmem_device, requests)->drained);
}

/* Waits for the requests that backends still have, and lets none in. */
static void drain(struct farmem_device *device)
{
	percpu_ref_kill(&device->requests);
	wait_for_completion(&device->drained);
	percpu_ref_exit(&device->requests);
}

/**
 * farmem_attach() - make a device and its disk
 * @options: what it shall be
 *
 * Return: the device, in the list, or an ERR_PTR.
 */
struct farmem_device *farmem_attach(struct farmem_options *options)
{
	struct farmem_device *device;
	int error = -ENOENT;
	size_t i;

	lockdep_assert_held(&farmem_mutex);
	if (farmem_find(options->name))
		return ERR_PTR(-EEXIST);
	if (options->area) {
		error = farmem_area_check(options);
		if (error)
			return ERR_PTR(error);
		error = -ENOENT;
	}
	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, options->backend))
			device->backend = backends[i];
	if (!device->backend)
		goto free_device;
	strscpy(device->name, options->name, sizeof(device->name));
	device->size = options->size;
	device->capacity = options->capacity;
	device->reserve = options->reserve;
	device->poll = options->poll;
	init_completion(&device->drained);

	/* A device keeps the module; taken first, so that rmmod has one answer. */
	error = -ENODEV;
	if (!try_module_get(THIS_MODULE))
		goto free_device;
	error = -ENOMEM;
	device->counters = alloc_percpu(struct farmem_counters);
	if (!device->counters)
		goto put_module;
	error = percpu_ref_init(&device->requests, drained, 0, GFP_KERNEL);
	if (error)
		goto free_counters;
	error = device->backend->attach(device, options);
	if (error)
		goto stop_requests;
	error = options->area ? farmem_area_add(device, options) : farmem_disk_add(device);
	if (error)
		goto detach_backend;
	mutex_lock(&farmem_list_mutex);
	list_add_tail(&device->link, &farmem_devices);
	mutex_unlock(&farmem_list_mutex);
	return device;

detach_backend:
	drain(device);
	device->backend->detach(device);
	goto free_counters;
stop_requests:
	drain(device);
free_counters:
	free_percpu(device->counters);
put_module:
	module_put(THIS_MODULE);
free_device:
	kfree(device);
	return ERR_PTR(error);
}

/**
 * farmem_detach() - remove a device that nobody has open
 * @device: freed on success
 *
 * Return: 0, or -EBUSY and nothing is changed.
 */
int farmem_detach(struct farmem_device *device)
{
	int error;

	lockdep_assert_held(&farmem_mutex);
	/* A status shows a device with its frontend, or no device. */
	mutex_lock(&farmem_list_mutex);
	error = device->area ? farmem_area_remove(device) : farmem_disk_remove(device);
	if (!error)
		list_del(&device->link);
	mutex_unlock(&farmem_list_mutex);
	if (error)
		return error;
	drain(device);
	device->backend->detach(device);
	free_percpu(device->counters);
	kfree(device);
	module_put(THIS_MODULE);
	return 0;
}

static int __init farmem_init(void)
{
	int error = -ENOMEM;

	deferred_queue = alloc_workqueue("farmem_deferred", WQ_MEM_RECLAIM, 0);
	if (!deferred_queue)
		return error;
	error = farmem_block_init();
	if (error)
		goto destroy_queue;
	error = farmem_frontswap_init();
	if (error)
		goto exit_block;
	error = farmem_netlink_init();
	if (!error)
		return 0;
	farmem_frontswap_exit();
exit_block:
	farmem_block_exit();
destroy_queue:
	destroy_workqueue(deferred_queue);
	return error;
}

static void __exit farmem_exit(void)
{
	/* Waits for commands under way. Devices there are none: each keeps the module. */
	farmem_netlink_exit();
	WARN_ON(!list_empty(&farmem_devices));
	farmem_frontswap_exit();
	farmem_block_exit();
	destroy_workqueue(deferred_queue);
}

module_init(farmem_init);
module_exit(farmem_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Far memory: pages kept elsewhere, as a block device to swap on");
