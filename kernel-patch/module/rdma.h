/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inside the backend rdma.
 *
 * Who runs: submitters and discards in their own contexts, completions in
 * softirq, a timer, and one thread for each device, which alone opens, serves
 * and closes sessions and asks for slabs.
 *
 * Locks, outermost first: rdma_lane.lock, rdma_slab.lock, rdma_far.todo_lock.
 * Nothing is ended, and nothing sleeps, under any of them.
 */
#ifndef _FARMEM_RDMA_H
#define _FARMEM_RDMA_H

#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/inet.h>
#include <linux/list.h>
#include <linux/semaphore.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <rdma/ib_verbs.h>
#include <rdma/rdma_cm.h>

#include "CWireFormat.h"
#include "farmem.h"

/* Pages that one work request carries. */
#define RDMA_PAGES_MAX	16
/* Work requests that one lane has under way, and so in its send queue. */
#define RDMA_SLOTS	64
/* How long a reply on the control queue may take, ms. */
#define RDMA_REPLY_MS	5000
/* Period of the timer that looks for deadlines. */
#define RDMA_TICK	max(HZ / 20, 1)
/* How long an empty slab waits for its next page before it is returned. */
#define RDMA_LINGER	max(3 * HZ / 10, 1)

struct rdma_far;
struct rdma_lane;

/* One connection. */
struct rdma_queue {
	struct rdma_far *far;
	u16 number;		/* 0: control */
	struct rdma_cm_id *id;
	struct ib_cq *cq;
	bool stepped;		/* the event that is waited for has come */
	int status;		/* what it said */
	bool connected;
	struct fm_rdma_accept accept;
};

enum rdma_slab_state {
	RDMA_SLAB_NONE,		/* not ours */
	RDMA_SLAB_WANTED,	/* on the list of grants to ask for */
	RDMA_SLAB_GRANTING,	/* asked for */
	RDMA_SLAB_READY,	/* ours, with a key of the session */
	RDMA_SLAB_RETURNING,	/* RETURN was sent */
};

struct rdma_slab {
	spinlock_t lock;	/* all of this, and the bits of its pages */
	enum rdma_slab_state state;
	u32 key;
	u32 present;		/* pages that hold something */
	u32 busy;		/* slots that name it: it is not returned */
	struct list_head link;	/* in rdma_far.grants or .returns, under its lock */
};

/* A work request: neighbouring pages of one slab, of one or several requests. */
struct rdma_slot {
	struct list_head link;
	struct rdma_lane *lane;
	struct rdma_slab *slab;
	enum farmem_direction direction;
	u64 first;
	u32 count;
	int error;
	unsigned long deadline;	/* jiffies */
	unsigned long posted;	/* jiffies */
	bool *ended;		/* set for a submitter that spins, or NULL */
	struct ib_cqe done;
	struct ib_rdma_wr wr;
	struct ib_sge sges[RDMA_PAGES_MAX];
	struct page *pages[RDMA_PAGES_MAX];
	struct farmem_io *ios[RDMA_PAGES_MAX];
};

/* One data queue's requests; it outlives the connections. */
struct rdma_lane {
	spinlock_t lock;		/* the lists, live, and posting */
	struct rdma_far *far;
	struct semaphore room;		/* counts the free slots */
	struct list_head free;
	struct list_head parked;	/* wait for a session or a slab */
	struct list_head posted;	/* the device has them, or had when it failed */
	bool live;
	bool polled;
	spinlock_t poll_lock;		/* who looks into the completion queue */
	struct rdma_queue queue;
	struct rdma_slot *slots;
};

/* Slots of one lane that are not issued yet. */
struct rdma_batch {
	struct rdma_far *far;
	struct rdma_lane *lane;
	struct rdma_slot *open;		/* may take more pages */
	struct list_head slots;
};

struct rdma_frame {
	struct fm_frame_header header;
	u8 payload[FM_WIRE_PAYLOAD_MAX];
} __packed;

#define RDMA_RECEIVES 2

struct rdma_control {
	struct rdma_queue queue;
	struct rdma_frame *frames;	/* RDMA_RECEIVES to receive, one to send */
	u64 mapped;			/* their address for the device */
	struct ib_cqe sent;
	struct ib_cqe received[RDMA_RECEIVES];
	int arrived;			/* which frame holds the reply, or -1 */
	u32 arrived_bytes;
	bool asked;
	u32 cookie;
	unsigned long spoken;		/* jiffies of the last request */
	u32 refusal;			/* enum fm_error_code of the last ERROR */
};

enum rdma_state { RDMA_CONNECTING, RDMA_LIVE, RDMA_LOST };

enum rdma_flag {
	RDMA_FAILED,	/* the session is over */
	RDMA_POKED,	/* the thread has something to do */
};

struct rdma_far {
	struct farmem_device *device;
	enum rdma_state state;
	unsigned long flags;
	wait_queue_head_t wake;		/* the thread's */
	struct task_struct *thread;
	struct completion attached;
	int attach_error;
	const char *problem;		/* why the last session could not be opened */

	/* What the attach asked for. */
	struct net *net;
	struct sockaddr_storage address;
	char address_text[INET6_ADDRSTRLEN + 16];
	u16 port;
	char lease[FM_WIRE_NAME_MAX];
	char key_name[FM_WIRE_NAME_MAX];
	struct crypto_shash *hmac;	/* has the secret; NULL without a key */
	u32 attach_ms;
	u32 read_ms;
	u32 write_ms;
	u16 queues_wanted;
	bool poll;
	bool synchronous;

	/* The lease, from the first session on. */
	bool opened;
	struct fm_opened_rdma lease_info;
	u32 slab_pages;
	u32 slab_shift;
	u32 slab_count;
	u32 capacity_slabs;
	struct rdma_slab *slabs;
	unsigned long *present;

	/* The session. */
	struct rdma_control control;
	struct ib_device *ibdev;
	struct ib_pd *pd;
	unsigned long step_jiffies;	/* for one step of connecting */
	unsigned long open_until;	/* jiffies: for all steps of connecting */

	/* Lanes of reads, then of writes, then of polled reads: @fan of each. */
	struct rdma_lane *lanes;
	unsigned int lane_count;
	unsigned int fan;
	u32 pages_max;			/* of one work request */
	u32 slots;			/* of one lane */

	spinlock_t todo_lock;		/* the two lists of slabs */
	struct list_head grants;
	struct list_head returns;
	unsigned long returns_due;	/* jiffies */
	u32 held;			/* slabs; changed by the thread only */
	int denied;			/* why there was no slab just now */
	unsigned long denied_until;	/* jiffies */
	struct timer_list timer;
};

/* rdma_queue.c */
int rdma_queue_open(struct rdma_queue *queue, u32 sends, u32 receives, u32 sges,
		    enum ib_poll_context context, u8 reads);
void rdma_queue_disconnect(struct rdma_queue *queue);
void rdma_queue_close(struct rdma_queue *queue);
void rdma_queue_release(struct rdma_queue *queue);
bool rdma_wait(struct rdma_far *far, bool *condition, unsigned long timeout);

/* rdma_control.c */
int rdma_control_open(struct rdma_far *far);
void rdma_control_close(struct rdma_far *far);
int rdma_control_call(struct rdma_far *far, enum fm_frame_type type,
		      const void *payload, u32 size, enum fm_frame_type answer,
		      void *reply, u32 reply_max, u32 *reply_size);
int rdma_set_key(struct rdma_far *far, const struct farmem_options *options);

/* rdma_slab.c */
int rdma_slabs_create(struct rdma_far *far);
void rdma_slabs_destroy(struct rdma_far *far);
int rdma_slabs_reserve(struct rdma_far *far);
int rdma_slabs_forget(struct rdma_far *far);
int rdma_slabs_resume(struct rdma_far *far);
int rdma_slabs_work(struct rdma_far *far);
int rdma_slab_want(struct rdma_far *far, struct rdma_slab *slab);
void rdma_slab_idle(struct rdma_far *far, struct rdma_slab *slab);
void rdma_discard(struct farmem_device *device, u64 first, u32 count);

/* rdma_lane.c */
int rdma_lanes_create(struct rdma_far *far);
void rdma_lanes_destroy(struct rdma_far *far);
int rdma_lanes_open(struct rdma_far *far);
void rdma_lanes_go(struct rdma_far *far);
void rdma_lanes_stop(struct rdma_far *far);
void rdma_lanes_close(struct rdma_far *far);
void rdma_lanes_kick(struct rdma_far *far);
void rdma_lane_issue(struct rdma_lane *lane, struct list_head *slots);
void rdma_slot_end(struct rdma_slot *slot, int error);
void rdma_part_end(struct farmem_io *io, int error);
void rdma_poll(struct rdma_lane *lane, bool *ended);
void rdma_timer(struct timer_list *timer);

/* rdma_submit.c */
void rdma_submit(struct farmem_io *io);

/* rdma_session.c */
int rdma_session_thread(void *data);

static inline void rdma_poke(struct rdma_far *far, enum rdma_flag flag)
{
	set_bit(flag, &far->flags);
	wake_up(&far->wake);
}

static inline bool rdma_failed(struct rdma_far *far)
{
	return test_bit(RDMA_FAILED, &far->flags);
}

static inline void rdma_arm(struct rdma_far *far)
{
	if (!timer_pending(&far->timer))
		mod_timer(&far->timer, jiffies + RDMA_TICK);
}

#endif /* _FARMEM_RDMA_H */
