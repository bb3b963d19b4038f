/*
 * One well-behaved conversation: usage conversation HOST PORT KEY-NAME KEY-HEX. Prints what went wrong, status 1; nothing and 0 when
 * all was as docs/protocol.md says.
 */
#include <stdio.h>
#include <string.h>

#include "client.h"

#define SLAB (1 << 19)

static struct session session;
static struct queue data, second;
static struct page page;

static void fill(uint8_t seed)
{
	for (int index = 0; index < 4096; index++)
		page.bytes[index] = (uint8_t)(index * 7 + seed + (index >> 8));
}

static void expect(uint8_t seed, const char *what)
{
	for (int index = 0; index < 4096; index++)
		if (page.bytes[index] != (uint8_t)(index * 7 + seed + (index >> 8)))
			die("%s: byte %d is wrong", what, index);
}

int main(int argc, char **argv)
{
	struct fm_slabs slabs = { .first = 3, .count = 1 };
	struct fm_granted_keys keys = { 0 };
	struct fm_resume resume = { .lease_name = "talk" };
	struct fm_opened_rdma before;
	uint32_t key;
	uint64_t at;

	if (argc != 5)
		die("usage: conversation HOST PORT KEY-NAME KEY-HEX");
	host = argv[1];
	port = argv[2];
	key_name = argv[3];
	key_hex = argv[4];

	begin(&session, "talk", 8 * SLAB);
	before = session.lease;
	if (before.size != 8 * SLAB || before.slab_bytes != SLAB || !before.queues_max || !before.reads_max)
		die("not the lease that was asked for");
	key = grant(&session, 3);
	if (connect_data(&session, &data, 1, before.token))
		die("the data queue is not connected");
	make_page(&data, &page);
	at = before.base + 3 * SLAB;

	/* A fresh slab reads as zeros; what is written reads back; the slab's last page, too. */
	memset(page.bytes, 0xff, 4096);
	if (transfer(&data, &page, IBV_WR_RDMA_READ, at + 4096, key, 4096))
		die("a READ failed");
	for (int index = 0; index < 4096; index++)
		if (page.bytes[index])
			die("a fresh page is not zeros");
	for (int index = 0; index < SLAB / 4096; index++) {
		fill(index);
		if (transfer(&data, &page, IBV_WR_RDMA_WRITE, at + index * 4096, key, 4096))
			die("WRITE of page %d failed", index);
	}
	for (int index = 0; index < SLAB / 4096; index++) {
		if (transfer(&data, &page, IBV_WR_RDMA_READ, at + index * 4096, key, 4096))
			die("READ of page %d failed", index);
		expect(index, "what was written");
	}

	/* Another session takes the lease over, with all that is in it; the first one's keys end. */
	{
		static struct session heir;
		struct fm_welcome welcome;

		connect_control(&heir);
		say_hello(&heir, &welcome);
		authenticate(&heir, &welcome);
		resume.session = before.session;
		memcpy(resume.token, before.token, sizeof(resume.token));
		if (ask(&heir, FM_FRAME_RESUME, &resume, sizeof(resume), &heir.lease, sizeof(heir.lease)) !=
		    FM_FRAME_OPENED_RDMA)
			die("the lease is not resumed");
		if (heir.lease.epoch != before.epoch || heir.lease.lease_id != before.lease_id)
			die("resumed, but another lease");
		if (!transfer(&data, &page, IBV_WR_RDMA_READ, at, key, 4096))
			die("a READ on the old session's queue went on");
		rdma_destroy_ep(data.id);
		slabs = (struct fm_slabs){ .first = 0, .count = 8 };
		if (ask(&heir, FM_FRAME_HELD, &slabs, sizeof(slabs), &keys, sizeof(keys)) != FM_FRAME_GRANTED_KEYS ||
		    keys.first != 3 || keys.count != 1)
			die("HELD does not say that slab 3 is held");
		if (connect_data(&heir, &second, 2, heir.lease.token))
			die("the second data queue is not connected");
		make_page(&second, &page);
		if (transfer(&second, &page, IBV_WR_RDMA_READ, at + 5 * 4096, keys.keys[0], 4096))
			die("a READ of the resumed lease failed");
		expect(5, "what an earlier session wrote");

		/* Given back: cleared, and its key ends. */
		slabs = (struct fm_slabs){ .first = 3, .count = 1 };
		if (ask(&heir, FM_FRAME_RETURN, &slabs, sizeof(slabs), NULL, 0) != FM_FRAME_OK)
			die("RETURN was not taken");
		if (!transfer(&second, &page, IBV_WR_RDMA_READ, at, keys.keys[0], 4096))
			die("the key of a returned slab still opens it");
		drop(&second);
		if (ask(&heir, FM_FRAME_HELD, &slabs, sizeof(slabs), &keys, sizeof(keys)) != FM_FRAME_GRANTED_KEYS ||
		    keys.count)
			die("HELD says that a returned slab is held");
		key = grant(&heir, 3);
		if (connect_data(&heir, &second, 2, heir.lease.token))
			die("the number of a closed queue is not free again");
		make_page(&second, &page);
		if (transfer(&second, &page, IBV_WR_RDMA_READ, at + 5 * 4096, key, 4096))
			die("a READ of the slab that was granted again failed");
		for (int index = 0; index < 4096; index++)
			if (page.bytes[index])
				die("a slab that was returned is not cleared");
		if (ask(&heir, FM_FRAME_PING, NULL, 0, NULL, 0) != FM_FRAME_PONG)
			die("no PONG");
		if (ask(&heir, FM_FRAME_RELEASE, NULL, 0, NULL, 0) != FM_FRAME_OK)
			die("RELEASE was not taken");
	}
	return 0;
}
