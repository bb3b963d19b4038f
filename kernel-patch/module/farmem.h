/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inside farmem.ko: devices, requests, and what a backend must offer.
 */
#ifndef _FARMEM_H
#define _FARMEM_H

#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/percpu-refcount.h>
#include <linux/types.h>

#include "farmem_uapi.h"

struct farmem_area;
struct farmem_device;
struct gendisk;
struct net;
struct sk_buff;

enum farmem_direction { FARMEM_READ, FARMEM_WRITE };

/**
 * struct farmem_io - a read or write of neighbouring pages
 * @device: set by farmem_submit()
 * @direction: read or write
 * @first: the first page's number on the device
 * @count: how many pages
 * @vecs: where the bytes are: every segment is one whole page
 * @iter: where in @vecs
 * @complete: called once, in any context, with 0 or a negative errno; after an
 *	error no page of the request holds anything that may be used
 * @plugged: it comes under the task's block plug: a backend may hold it back
 *	until that is unplugged, to send it with others
 * @fault: of a swap area: a read that a fault waits for, not of its readahead
 * @started: set by farmem_submit(), nanoseconds
 * @parts: the backend's, to count what is not done yet
 * @error: the backend's, the first that a part met
 */
struct farmem_io {
	struct farmem_device *device;
	enum farmem_direction direction;
	u64 first;
	u32 count;
	const struct bio_vec *vecs;
	struct bvec_iter iter;
	void (*complete)(struct farmem_io *io, int error);
	bool plugged;
	bool fault;
	u64 started;
	atomic_t parts;
	int error;
};

/**
 * struct farmem_options - what an attach asks for
 * @name: checked by the caller
 * @backend: a backend's name
 * @size: in pages, not 0
 * @capacity: in pages, at most @size, not 0
 * @reserve: set the capacity aside now
 * @net: where the address is to be looked for
 * @address: of the server, as text
 * @port: of the server
 * @lease: its name on the server
 * @key_name: or NULL
 * @secret: of the key
 * @secret_size: in bytes
 * @attach_ms: how long the attach may take
 * @read_ms: how long a read is tried
 * @write_ms: how long a write is tried
 * @queues: data queues wanted at most; 0 leaves it to the backend
 * @poll: reads of one page spin until it is there
 * @synchronous: one page per round trip, for comparisons
 * @area: the swap area to serve by frontswap, or NULL for a disk
 * @problem: set by a backend that refuses: one line of static text for people
 */
struct farmem_options {
	const char *name;
	const char *backend;
	u64 size;
	u64 capacity;
	bool reserve;
	struct net *net;
	const char *address;
	u16 port;
	const char *lease;
	const char *key_name;
	const u8 *secret;
	size_t secret_size;
	u32 attach_ms;
	u32 read_ms;
	u32 write_ms;
	u16 queues;
	bool poll;
	bool synchronous;
	const char *area;
	const char *problem;
};

/**
 * struct farmem_backend - where pages are kept
 * @name: as FARMEM_A_BACKEND
 * @attach: ready for the device's pages; sets farmem_device.backend_data
 * @detach: no request is under way and none will come; frees all
 * @submit: carries out a request that is inside the device, now or later, and
 *	ends it with farmem_end_io(). May sleep, but not for memory that only a
 *	write to a farmem device can free.
 * @discard: lets go of pages at once. In atomic context, so it does not sleep
 *	and is asked for few pages at a time.
 * @used: how many pages are held
 * @put_status: adds its own attributes to a status, or is NULL
 */
struct farmem_backend {
	const char *name;
	int (*attach)(struct farmem_device *device, struct farmem_options *options);
	void (*detach)(struct farmem_device *device);
	void (*submit)(struct farmem_io *io);
	void (*discard)(struct farmem_device *device, u64 first, u32 count);
	u64 (*used)(struct farmem_device *device);
	int (*put_status)(struct farmem_device *device, struct sk_buff *message);
};

struct farmem_counters {
	u64 of[FARMEM_C_MAX + 1];
	u64 latency[2][FARMEM_LATENCY_BUCKETS];	/* by enum farmem_direction */
};

struct farmem_device {
	struct list_head link;
	char name[FARMEM_NAME_SIZE];
	const struct farmem_backend *backend;
	void *backend_data;
	u64 size;		/* pages */
	u64 capacity;		/* pages */
	bool reserve;
	bool poll;
	struct farmem_counters __percpu *counters;

	/* One per request under way: a backend may end it after its bio's submitter left. */
	struct percpu_ref requests;
	struct completion drained;

	/* Its frontend: a swap area, or a disk. */
	struct farmem_area *area;
	struct gendisk *disk;
	int number;
	bool closing;		/* under the disk's open_mutex */
};

static inline void farmem_add(struct farmem_device *device,
			      enum farmem_counter counter, u64 value)
{
	this_cpu_add(device->counters->of[counter], value);
}

/* core.c */
extern struct mutex farmem_mutex;	/* attach and detach */
extern struct mutex farmem_list_mutex;	/* the list; inside of farmem_mutex */
extern struct list_head farmem_devices;

struct farmem_device *farmem_find(const char *name);
struct farmem_device *farmem_attach(struct farmem_options *options);
int farmem_detach(struct farmem_device *device);
u64 farmem_count(struct farmem_device *device, enum farmem_counter counter);
void farmem_latency(struct farmem_device *device, enum farmem_direction direction,
		    u64 buckets[FARMEM_LATENCY_BUCKETS]);
void farmem_submit(struct farmem_device *device, struct farmem_io *io);
void farmem_end_io(struct farmem_io *io, int error);
int farmem_discard(struct farmem_device *device, u64 first, u64 count,
		   enum farmem_counter counter);

/* block.c */
int farmem_block_init(void);
void farmem_block_exit(void);
int farmem_disk_add(struct farmem_device *device);
int farmem_disk_remove(struct farmem_device *device);

/* frontswap.c */
int farmem_frontswap_init(void);
void farmem_frontswap_exit(void);
int farmem_area_check(struct farmem_options *options);
int farmem_area_add(struct farmem_device *device, struct farmem_options *options);
int farmem_area_remove(struct farmem_device *device);
const char *farmem_area_path(struct farmem_device *device);
bool farmem_area_used(struct farmem_device *device);

/* dram.c */
extern const struct farmem_backend farmem_dram;

/* rdma.c, or rdma_none.c on a kernel without RDMA */
extern const struct farmem_backend farmem_rdma;

/* netlink.c */
int farmem_netlink_init(void);
void farmem_netlink_exit(void);

#endif /* _FARMEM_H */
