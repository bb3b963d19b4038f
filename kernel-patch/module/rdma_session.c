// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: the device's thread. It opens a session, serves it,
 * closes it and opens the next, until the device is detached.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kthread.h>
#include <linux/sched/mm.h>

#include "rdma.h"

/* Between two tries to come back, ms: doubled from the first to the last. */
#define PAUSE_FIRST	20
#define PAUSE_LAST	1000
/* For one step of a try: doubled with each. */
#define STEP_FIRST	500
#define STEP_LAST	4000
#define STEP_ATTACH	1000

static bool over(struct rdma_far *far)
{
	return rdma_failed(far) || kthread_should_stop();
}

static int first_time(struct rdma_far *far)
{
	int error = rdma_slabs_create(far) ?: rdma_lanes_create(far);

	if (!error)
		error = rdma_slabs_forget(far);
	if (!error && far->device->reserve)
		error = rdma_slabs_reserve(far);
	return error;
}

static int open_session(struct rdma_far *far)
{
	int error = rdma_control_open(far);

	if (!error && !far->opened)
		error = first_time(far);
	if (!error)
		error = rdma_lanes_open(far);
	if (!error && far->opened)
		error = rdma_slabs_resume(far);
	if (!error && rdma_failed(far)) {
		far->problem = "farmem: the server ended the connection";
		error = -ECONNRESET;
	}
	return error;
}

static void close_session(struct rdma_far *far)
{
	rdma_lanes_stop(far);
	rdma_control_close(far);
	rdma_lanes_close(far);
	if (far->pd)
		ib_dealloc_pd(far->pd);
	far->pd = NULL;
	far->ibdev = NULL;
	/* Last, as it lets go of the device. */
	rdma_queue_release(&far->control.queue);
}

/* When the thread has something to do next. */
static long idle(struct rdma_far *far, unsigned long silence)
{
	unsigned long due = far->control.spoken + silence;
	unsigned long returns = READ_ONCE(far->returns_due);

	if (!list_empty_careful(&far->returns) && time_before(returns, due))
		due = returns;
	return max_t(long, due - jiffies, 1);
}

static void serve_session(struct rdma_far *far)
{
	unsigned long silence =
		max(msecs_to_jiffies(le32_to_cpu(far->lease_info.silence_ms) / 3), 2UL);

	while (!over(far)) {
		wait_event_timeout(far->wake, over(far) ||
				   test_bit(RDMA_POKED, &far->flags), idle(far, silence));
		if (over(far))
			return;
		clear_bit(RDMA_POKED, &far->flags);
		/* Before the lists are looked at. */
		smp_mb__after_atomic();
		if (rdma_slabs_work(far))
			return;
		if (time_after_eq(jiffies, far->control.spoken + silence) &&
		    rdma_control_call(far, FM_FRAME_PING, NULL, 0, FM_FRAME_PONG, NULL, 0, NULL))
			return;
	}
}

static bool may_change(int error)
{
	return error == -EBUSY || error == -ETIMEDOUT || error == -EHOSTUNREACH;
}

/*
 * The first session of all. Its failure is the attach's, unless another client
 * is just leaving, or a message was lost: the connection manager takes seconds
 * to send it again.
 */
static int attach(struct rdma_far *far)
{
	int error;

	far->step_jiffies = msecs_to_jiffies(min_t(u32, far->attach_ms, STEP_ATTACH));
	far->open_until = jiffies + msecs_to_jiffies(far->attach_ms);
	for (;;) {
		error = open_session(far);
		/* Not so late that being too late would be the answer. */
		if (!may_change(error) || far->slabs ||
		    time_after(jiffies + HZ / 2, far->open_until))
			return error;
		close_session(far);
		clear_bit(RDMA_FAILED, &far->flags);
		schedule_timeout_uninterruptible(msecs_to_jiffies(100));
	}
}

static void go_live(struct rdma_far *far)
{
	far->opened = true;
	WRITE_ONCE(far->state, RDMA_LIVE);
	farmem_add(far->device, FARMEM_C_SESSIONS, 1);
	rdma_lanes_go(far);
}

static void lose(struct rdma_far *far)
{
	pr_err("%s: the server does not have the lease %s any more: its pages are lost\n",
	       far->device->name, far->lease);
	WRITE_ONCE(far->state, RDMA_LOST);
	rdma_lanes_kick(far);
}

/* The next session of the lease; false when there will be none. */
static bool come_back(struct rdma_far *far)
{
	unsigned long pause = PAUSE_FIRST, limit = STEP_FIRST;
	unsigned int tries;
	int error;

	WRITE_ONCE(far->state, RDMA_CONNECTING);
	for (tries = 1; !kthread_should_stop(); tries++) {
		clear_bit(RDMA_FAILED, &far->flags);
		far->step_jiffies = msecs_to_jiffies(limit);
		far->open_until = jiffies + msecs_to_jiffies(limit + RDMA_REPLY_MS);
		error = open_session(far);
		if (!error) {
			pr_info("%s: back after %u tries\n", far->device->name, tries);
			return true;
		}
		close_session(far);
		if (error == -ENODATA) {
			lose(far);
			return false;
		}
		if (tries == 1)
			pr_info("%s: %s (%d); trying on\n", far->device->name, far->problem, error);
		wait_event_timeout(far->wake, kthread_should_stop(), msecs_to_jiffies(pause));
		pause = min_t(unsigned long, 2 * pause, PAUSE_LAST);
		limit = min_t(unsigned long, 2 * limit, STEP_LAST);
	}
	return false;
}

int rdma_session_thread(void *data)
{
	struct rdma_far *far = data;
	/*
	 * Reclaim may wait for pages that only a session can carry away: so the
	 * way to a session neither waits for reclaim nor starts it.
	 */
	unsigned int noio = memalloc_noio_save();
	unsigned int noreclaim = 0;
	bool live;

	far->attach_error = attach(far);
	live = !far->attach_error;
	if (live)
		go_live(far);
	complete(&far->attached);
	if (live)
		noreclaim = memalloc_noreclaim_save();
	while (live && !kthread_should_stop()) {
		serve_session(far);
		if (kthread_should_stop())
			break;
		close_session(far);
		live = come_back(far);
		if (live)
			go_live(far);
	}
	/* The pages are worth nothing to anybody once the device is gone. */
	if (live && !rdma_failed(far))
		rdma_control_call(far, FM_FRAME_RELEASE, NULL, 0, FM_FRAME_OK, NULL, 0, NULL);
	close_session(far);
	memalloc_noreclaim_restore(noreclaim);
	memalloc_noio_restore(noio);
	while (!kthread_should_stop())
		wait_event_timeout(far->wake, kthread_should_stop(), HZ);
	return 0;
}
