// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem, backend rdma: which slabs we hold, and which pages hold something.
 *
 * A slab is asked for when a write needs it and returned when its last page is
 * discarded and nothing is under way in it. Only the thread talks about it with
 * the server; others put slabs on its two lists.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "rdma.h"

#define RETURN_MAX 1024
/* Clearing memory takes time. */
#define RESERVE_MAX 32

static u32 number_of(struct rdma_far *far, struct rdma_slab *slab)
{
	return slab - far->slabs;
}

static void list_slab(struct rdma_far *far, struct rdma_slab *slab, struct list_head *list)
{
	unsigned long flags;

	lockdep_assert_held(&slab->lock);
	spin_lock_irqsave(&far->todo_lock, flags);
	if (list == &far->returns && list_empty(list))
		far->returns_due = jiffies + RDMA_LINGER;
	list_move_tail(&slab->link, list);
	spin_unlock_irqrestore(&far->todo_lock, flags);
	rdma_poke(far, RDMA_POKED);
}

static void unlist(struct rdma_far *far, struct rdma_slab *slab)
{
	unsigned long flags;

	spin_lock_irqsave(&far->todo_lock, flags);
	list_del_init(&slab->link);
	spin_unlock_irqrestore(&far->todo_lock, flags);
}

static struct rdma_slab *next_of(struct rdma_far *far, struct list_head *list)
{
	struct rdma_slab *slab;
	unsigned long flags;

	spin_lock_irqsave(&far->todo_lock, flags);
	slab = list_first_entry_or_null(list, struct rdma_slab, link);
	if (slab)
		list_del_init(&slab->link);
	spin_unlock_irqrestore(&far->todo_lock, flags);
	return slab;
}

/**
 * rdma_slab_want() - a write needs this slab
 * @far: the device
 * @slab: locked, and not ready
 *
 * Return: 0, or why it is refused at once: there was none just now.
 */
int rdma_slab_want(struct rdma_far *far, struct rdma_slab *slab)
{
	int denied = READ_ONCE(far->denied);

	if (slab->state != RDMA_SLAB_NONE)
		return 0;
	if (denied && time_before(jiffies, READ_ONCE(far->denied_until)))
		return denied;
	slab->state = RDMA_SLAB_WANTED;
	list_slab(far, slab, &far->grants);
	return 0;
}

/* Something was taken off a slab, which is locked: it is returned if that was the last. */
void rdma_slab_idle(struct rdma_far *far, struct rdma_slab *slab)
{
	if (!slab->busy && !slab->present && slab->state == RDMA_SLAB_READY &&
	    !far->device->reserve)
		list_slab(far, slab, &far->returns);
}

void rdma_discard(struct farmem_device *device, u64 first, u32 count)
{
	struct rdma_far *far = device->backend_data;
	u64 page = first;

	while (page < first + count) {
		struct rdma_slab *slab = &far->slabs[page >> far->slab_shift];
		u64 end = min(first + count, round_down(page, far->slab_pages) + far->slab_pages);
		unsigned long flags;

		spin_lock_irqsave(&slab->lock, flags);
		if (slab->present) {
			for (; page < end; page++)
				slab->present -= test_and_clear_bit(page, far->present);
			rdma_slab_idle(far, slab);
		}
		spin_unlock_irqrestore(&slab->lock, flags);
		page = end;
	}
}

typedef bool (*slab_test)(struct rdma_slab *slab);

static bool take_wanted(struct rdma_slab *slab)
{
	if (slab->state != RDMA_SLAB_WANTED)
		return false;
	/* Whoever wanted it may have given up. */
	slab->state = slab->busy ? RDMA_SLAB_GRANTING : RDMA_SLAB_NONE;
	return slab->busy;
}

static bool take_idle(struct rdma_slab *slab)
{
	if (slab->state != RDMA_SLAB_READY || slab->busy || slab->present)
		return false;
	slab->state = RDMA_SLAB_RETURNING;
	return true;
}

/* How many slabs from @first on were taken by @take. */
static u32 take_run(struct rdma_far *far, u32 first, u32 most, slab_test take)
{
	u32 last = min(first + most, far->slab_count);
	u32 number;

	for (number = first; number < last; number++) {
		struct rdma_slab *slab = &far->slabs[number];
		unsigned long flags;
		bool taken;

		spin_lock_irqsave(&slab->lock, flags);
		taken = take(slab);
		if (taken)
			unlist(far, slab);
		spin_unlock_irqrestore(&slab->lock, flags);
		if (!taken)
			break;
	}
	return number - first;
}

/* Asks for the keys of slabs; how many of them came, or a negative errno. */
static int ask(struct rdma_far *far, u32 first, u32 count, struct fm_granted_keys *keys)
{
	struct fm_slabs request = {
		.first = cpu_to_le32(first),
		.count = cpu_to_le32(count),
	};
	u32 size, granted;
	int error;

	/* Each answer has its own time: there may be many slabs to come back to. */
	far->open_until = jiffies + msecs_to_jiffies(RDMA_REPLY_MS);
	error = rdma_control_call(far, FM_FRAME_GRANT, &request, sizeof(request),
				  FM_FRAME_GRANTED_KEYS, keys, sizeof(*keys), &size);
	if (error)
		return error;
	if (size < offsetof(struct fm_granted_keys, keys))
		goto nonsense;
	granted = le32_to_cpu(keys->count);
	if (le32_to_cpu(keys->first) != first || !granted || granted > count ||
	    size != offsetof(struct fm_granted_keys, keys) + granted * sizeof(keys->keys[0]))
		goto nonsense;
	return granted;

nonsense:
	rdma_poke(far, RDMA_FAILED);
	return -EPROTO;
}

static void set_state(struct rdma_far *far, u32 first, u32 count, enum rdma_slab_state state)
{
	u32 number;

	for (number = first; number < first + count; number++) {
		struct rdma_slab *slab = &far->slabs[number];
		unsigned long flags;

		spin_lock_irqsave(&slab->lock, flags);
		slab->state = state;
		if (state == RDMA_SLAB_WANTED)
			list_slab(far, slab, &far->grants);
		spin_unlock_irqrestore(&slab->lock, flags);
	}
}

static void accept_keys(struct rdma_far *far, const struct fm_granted_keys *keys)
{
	u32 first = le32_to_cpu(keys->first);
	u32 i;

	for (i = 0; i < le32_to_cpu(keys->count); i++) {
		struct rdma_slab *slab = &far->slabs[first + i];
		unsigned long flags;

		spin_lock_irqsave(&slab->lock, flags);
		slab->key = le32_to_cpu(keys->keys[i]);
		slab->state = RDMA_SLAB_READY;
		rdma_slab_idle(far, slab);
		spin_unlock_irqrestore(&slab->lock, flags);
	}
}

/* No slab now: for a moment writes that want one are not kept waiting. */
static void deny(struct rdma_far *far, u32 first, u32 count, int error)
{
	WRITE_ONCE(far->denied_until, jiffies + max(HZ / 10, 1));
	WRITE_ONCE(far->denied, error);
	set_state(far, first, count, RDMA_SLAB_NONE);
	rdma_lanes_kick(far);
}

static int grant(struct rdma_far *far, struct rdma_slab *slab)
{
	u32 first = number_of(far, slab);
	u32 count = take_run(far, first, FM_RDMA_KEYS_MAX, take_wanted);
	struct fm_granted_keys keys;
	u32 allowed = far->capacity_slabs - min(far->capacity_slabs, far->held);
	int granted;

	if (!count)
		return 0;
	if (count > allowed) {
		deny(far, first + allowed, count - allowed, -ENOSPC);
		count = allowed;
		if (!count)
			return 0;
	}
	granted = ask(far, first, count, &keys);
	if (granted == -ENOSPC) {
		deny(far, first, count, -EDQUOT);
		return 0;
	}
	if (granted < 0) {
		/* Nobody knows whether they are ours: the next session finds out. */
		rdma_poke(far, RDMA_FAILED);
		return granted;
	}
	WRITE_ONCE(far->denied, 0);
	far->held += granted;
	farmem_add(far->device, FARMEM_C_SLABS_GRANTED, granted);
	accept_keys(far, &keys);
	set_state(far, first + granted, count - granted, RDMA_SLAB_WANTED);
	rdma_lanes_kick(far);
	return 0;
}

/* Slabs that are marked as being returned. */
static int give_back(struct rdma_far *far, u32 first, u32 count)
{
	struct fm_slabs request = {
		.first = cpu_to_le32(first),
		.count = cpu_to_le32(count),
	};
	int error;
	u32 i;

	error = rdma_control_call(far, FM_FRAME_RETURN, &request, sizeof(request),
				  FM_FRAME_OK, NULL, 0, NULL);
	if (error) {
		rdma_poke(far, RDMA_FAILED);
		return error;
	}
	far->held -= count;
	farmem_add(far->device, FARMEM_C_SLABS_RETURNED, count);
	for (i = first; i < first + count; i++) {
		struct rdma_slab *slab = &far->slabs[i];
		unsigned long flags;

		spin_lock_irqsave(&slab->lock, flags);
		/* A write that came in between waits for it. */
		slab->state = slab->busy ? RDMA_SLAB_WANTED : RDMA_SLAB_NONE;
		if (slab->busy)
			list_slab(far, slab, &far->grants);
		spin_unlock_irqrestore(&slab->lock, flags);
	}
	return 0;
}

/* What others put on the lists; 0, or the session is over. */
int rdma_slabs_work(struct rdma_far *far)
{
	struct rdma_slab *slab;
	int error = 0;

	while (!error && (slab = next_of(far, &far->grants)))
		error = grant(far, slab);
	if (error || time_before(jiffies, READ_ONCE(far->returns_due)))
		return error;
	while (!error && (slab = next_of(far, &far->returns))) {
		u32 first = number_of(far, slab);
		u32 count = take_run(far, first, RETURN_MAX, take_idle);

		if (count)
			error = give_back(far, first, count);
		/* Writes wait for grants; nobody waits for returns. */
		while (!error && (slab = next_of(far, &far->grants)))
			error = grant(far, slab);
	}
	return error;
}

/*
 * What an earlier user of the lease left there is not ours to read, and our
 * pages are not there: so it is given back.
 */
int rdma_slabs_forget(struct rdma_far *far)
{
	u32 next = 0;

	while (next < far->slab_count) {
		u32 most = min_t(u32, far->slab_count - next, FM_RDMA_KEYS_MAX);
		struct fm_slabs request = {
			.first = cpu_to_le32(next),
			.count = cpu_to_le32(most),
		};
		struct fm_granted_keys keys;
		u32 size, first, count;
		int error;

		error = rdma_control_call(far, FM_FRAME_HELD, &request, sizeof(request),
					  FM_FRAME_GRANTED_KEYS, &keys, sizeof(keys), &size);
		if (error)
			return error;
		far->problem = "farmem: the server's answer makes no sense";
		if (size < offsetof(struct fm_granted_keys, keys))
			return -EPROTO;
		first = le32_to_cpu(keys.first);
		count = le32_to_cpu(keys.count);
		if (!count) {
			next += most;
			continue;
		}
		if (first < next || first - next >= most || count > most - (first - next))
			return -EPROTO;
		request.first = cpu_to_le32(first);
		request.count = cpu_to_le32(count);
		error = rdma_control_call(far, FM_FRAME_RETURN, &request, sizeof(request),
					  FM_FRAME_OK, NULL, 0, NULL);
		if (error)
			return error;
		next = first + count;
	}
	return 0;
}

/* Sets the capacity aside: slabs that are ours for as long as the device is there. */
int rdma_slabs_reserve(struct rdma_far *far)
{
	while (far->held < far->capacity_slabs) {
		u32 most = min_t(u32, far->capacity_slabs - far->held, RESERVE_MAX);
		struct fm_granted_keys keys;
		int granted = ask(far, far->held, most, &keys);

		if (granted < 0)
			return granted;
		far->held += granted;
		farmem_add(far->device, FARMEM_C_SLABS_GRANTED, granted);
		accept_keys(far, &keys);
	}
	return 0;
}

/* What a slab is after its session ended in the middle of something. */
static enum rdma_slab_state settle(struct rdma_far *far, u32 number)
{
	struct rdma_slab *slab = &far->slabs[number];
	enum rdma_slab_state state;
	unsigned long flags;

	spin_lock_irqsave(&slab->lock, flags);
	/* It may be ours or not: then count it as ours, and give it back or ask again. */
	if (slab->state == RDMA_SLAB_GRANTING) {
		far->held++;
		slab->state = RDMA_SLAB_RETURNING;
	}
	if (slab->state == RDMA_SLAB_RETURNING && slab->busy) {
		far->held--;
		slab->state = RDMA_SLAB_WANTED;
		list_slab(far, slab, &far->grants);
	}
	state = slab->state;
	spin_unlock_irqrestore(&slab->lock, flags);
	return state;
}

/* In a new session of the lease: keys for what we hold, and certainty about the rest. */
int rdma_slabs_resume(struct rdma_far *far)
{
	u32 first = 0;

	while (first < far->slab_count) {
		enum rdma_slab_state state = settle(far, first);
		u32 most = state == RDMA_SLAB_READY ? FM_RDMA_KEYS_MAX : RETURN_MAX;
		struct fm_granted_keys keys;
		u32 count = 1;
		int result = 0;

		while (count < most && first + count < far->slab_count &&
		       settle(far, first + count) == state)
			count++;
		if (state == RDMA_SLAB_READY)
			result = ask(far, first, count, &keys);
		else if (state == RDMA_SLAB_RETURNING)
			result = give_back(far, first, count);
		if (result < 0)
			return result;
		if (state == RDMA_SLAB_READY) {
			accept_keys(far, &keys);
			count = result;
		}
		first += count;
		cond_resched();
	}
	return 0;
}

int rdma_slabs_create(struct rdma_far *far)
{
	u64 size = le64_to_cpu(far->lease_info.size);
	u32 number;

	far->problem = "farmem: not enough memory for the table of slabs";
	far->slab_shift = ilog2(le32_to_cpu(far->lease_info.slab_bytes)) - PAGE_SHIFT;
	far->slab_pages = 1U << far->slab_shift;
	/* The lease may be larger than the device. */
	far->slab_count = min(DIV_ROUND_UP_ULL(far->device->size, far->slab_pages),
			      size >> (far->slab_shift + PAGE_SHIFT));
	far->capacity_slabs = clamp_t(u64, far->device->capacity >> far->slab_shift, 1,
				      far->slab_count);
	far->slabs = kvcalloc(far->slab_count, sizeof(*far->slabs), GFP_KERNEL);
	far->present = vzalloc(BITS_TO_LONGS((u64)far->slab_count * far->slab_pages) *
			       sizeof(long));
	if (!far->slabs || !far->present)
		return -ENOMEM;
	for (number = 0; number < far->slab_count; number++) {
		spin_lock_init(&far->slabs[number].lock);
		INIT_LIST_HEAD(&far->slabs[number].link);
	}
	return 0;
}

void rdma_slabs_destroy(struct rdma_far *far)
{
	kvfree(far->slabs);
	vfree(far->present);
}
