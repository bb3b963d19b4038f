/*
 * A client that tries what it must not: usage hostile HOST PORT VICTIM-KEY VICTIM-HEX OWN-KEY OWN-HEX. A victim with a lease of its own
 * goes on beside it and finds its bytes each time. Prints what went wrong, status 1; nothing and 0 when all was refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

#define SLAB (1 << 19)
#define FLOOD 100

static const char *victim_key[2], *own_key[2];
static struct session victim, own, passing[FLOOD];
static struct queue victim_data, own_data;
static struct page victim_page, page;
static uint32_t victim_rkey;

static void as(const char **key)
{
	key_name = key[0];
	key_hex = key[1];
}

static void victim_goes_on(const char *after)
{
	memset(victim_page.bytes, 0, 4096);
	if (transfer(&victim_data, &victim_page, IBV_WR_RDMA_READ, victim.lease.base + 4096, victim_rkey, 4096))
		die("after %s: the victim's READ failed", after);
	for (int index = 0; index < 4096; index++)
		if (victim_page.bytes[index] != 0x5a)
			die("after %s: the victim's page was changed", after);
	if (ask(&victim, FM_FRAME_PING, NULL, 0, NULL, 0) != FM_FRAME_PONG)
		die("after %s: the victim is not answered", after);
}

static void let_in(struct session *session)
{
	struct fm_welcome welcome;

	connect_control(session);
	say_hello(session, &welcome);
	authenticate(session, &welcome);
}

/* Connects with this private data and expects to be refused with this code. */
static struct fm_rdma_reject refused_connection(const struct fm_rdma_connect *request, int code, const char *what)
{
	struct queue queue;
	struct fm_rdma_reject reject;

	if (try_connect(&queue, request, sizeof(*request)) != 1)
		die("%s: not refused", what);
	memcpy(&reject, queue.private_data, sizeof(reject));
	if (reject.magic != FM_RDMA_MAGIC || reject.code != code)
		die("%s: refused with %u, not %d", what, reject.code, code);
	return reject;
}

static void connections(void)
{
	const struct fm_rdma_connect good = { .magic = FM_RDMA_MAGIC, .version_min = 1, .version_max = 1 };
	struct fm_rdma_connect request = good;
	struct fm_rdma_reject unknown, wrong;

	request.magic = 0x12345678;
	refused_connection(&request, FM_ERROR_BAD_REQUEST, "a wrong magic");
	request = good;
	request.version_min = 2;
	request.version_max = 9;
	refused_connection(&request, FM_ERROR_VERSION, "versions of the future");
	request.version_min = 3;
	request.version_max = 1;
	refused_connection(&request, FM_ERROR_BAD_REQUEST, "an impossible range of versions");
	request = good;
	request.queue = 1;
	request.session = 0x1234;
	unknown = refused_connection(&request, FM_ERROR_UNAUTHORIZED, "an unknown session");
	request.session = victim.lease.session;
	memcpy(request.token, own.lease.token, sizeof(request.token));
	request.queue = 7;
	wrong = refused_connection(&request, FM_ERROR_UNAUTHORIZED, "the victim's session with another token");
	if (memcmp(&unknown, &wrong, sizeof(wrong)))
		die("an unknown session and a wrong token are told apart");
	memcpy(request.token, victim.lease.token, sizeof(request.token));
	request.token[15] ^= 1;
	refused_connection(&request, FM_ERROR_UNAUTHORIZED, "a token with one wrong bit");
	/* Its own, with numbers that are taken or too large. */
	request.session = own.lease.session;
	memcpy(request.token, own.lease.token, sizeof(request.token));
	request.queue = 1;
	refused_connection(&request, FM_ERROR_UNAUTHORIZED, "a queue that is taken");
	request.queue = own.lease.queues_max + 1;
	refused_connection(&request, FM_ERROR_UNAUTHORIZED, "a queue beyond the limit");
	victim_goes_on("refused connections");
}

static void expect_end(struct session *session, const char *what)
{
	/* Not even an answer to a good request. */
	if (ask(session, FM_FRAME_PING, NULL, 0, NULL, 0))
		die("%s: the session goes on", what);
	drop(&session->control);
}

static void strangers(void)
{
	struct session *session = &passing[0];
	struct fm_welcome welcome;
	struct fm_open open = { .lease_name = "victim", .flags = 0 };
	struct fm_auth auth = { .key_name = "lab" };
	struct fm_resume resume = { .lease_name = "victim" };
	int code;

	connect_control(session);
	say_hello(session, &welcome);
	if (!welcome.auth_required)
		die("no key is wanted");
	if (error_of(session, FM_FRAME_OPEN, &open, sizeof(open)) != FM_ERROR_UNAUTHORIZED)
		die("OPEN without AUTH");
	expect_end(session, "OPEN without AUTH");

	connect_control(session);
	say_hello(session, &welcome);
	if (error_of(session, FM_FRAME_AUTH, &auth, sizeof(auth)) != FM_ERROR_UNAUTHORIZED)
		die("a wrong answer to the challenge");
	expect_end(session, "a wrong answer to the challenge");

	connect_control(session);
	if (error_of(session, FM_FRAME_PING, NULL, 0) != FM_ERROR_BAD_REQUEST)
		die("PING before HELLO");
	expect_end(session, "PING before HELLO");

	/* Let in under its own key, it asks for the victim's lease. */
	let_in(session);
	code = error_of(session, FM_FRAME_OPEN, &open, sizeof(open));
	if (code != FM_ERROR_UNAUTHORIZED)
		die("the lease of another key: %d", code);
	resume.session = victim.lease.session;
	memcpy(resume.token, own.lease.token, sizeof(resume.token));
	code = error_of(session, FM_FRAME_RESUME, &resume, sizeof(resume));
	if (code != FM_ERROR_UNAUTHORIZED)
		die("RESUME of the lease of another key: %d", code);
	memcpy(resume.token, victim.lease.token, sizeof(resume.token));
	memcpy(resume.lease_name, "hostile", 8);
	error_of(session, FM_FRAME_RESUME, &resume, sizeof(resume));
	drop(&session->control);
	victim_goes_on("strangers");
}

static void expect_code(int type, uint32_t first, uint32_t count, const char *what)
{
	struct fm_slabs slabs = { .first = first, .count = count };
	int code = error_of(&own, type, &slabs, sizeof(slabs));

	if (code != FM_ERROR_BAD_REQUEST)
		die("%s: %d", what, code);
}

static void requests(void)
{
	struct session *session = &passing[0];
	struct fm_slabs slabs = { .first = 0, .count = 1 };
	struct fm_frame_header header = { .magic = FM_WIRE_MAGIC, .version = 1, .type = FM_FRAME_PING };
	char frame[700] = { 0 };

	expect_code(FM_FRAME_GRANT, 8, 1, "GRANT behind the end");
	expect_code(FM_FRAME_GRANT, 0, 9, "GRANT across the end");
	expect_code(FM_FRAME_GRANT, 0, 125, "GRANT of more than fits");
	expect_code(FM_FRAME_HELD, 7, 2, "HELD across the end");
	expect_code(FM_FRAME_RETURN, 8, 1, "RETURN behind the end");
	expect_code(FM_FRAME_RETURN, 0, 1025, "RETURN of too many");

	let_in(session);
	if (error_of(session, FM_FRAME_GRANT, &slabs, sizeof(slabs)) != FM_ERROR_BAD_REQUEST)
		die("GRANT before OPEN");
	slabs.first = 0xffffffff;
	slabs.count = 0xffffffff;
	if (error_of(session, FM_FRAME_GRANT, &slabs, sizeof(slabs)) != -1)
		die("slabs beyond 2^32 do not end the session");
	drop(&session->control);

	for (int index = 0; index < 6; index++) {
		struct fm_frame_header bad = header;
		size_t length = sizeof(bad);

		switch (index) {
		case 0:
			bad.magic = 1;
			break;
		case 1:
			bad.version = 77;
			break;
		case 2:
			bad.type = 99;
			break;
		case 3:
			bad.length = 100; /* more than was sent */
			break;
		case 4:
			length = 3;
			break;
		default:
			length = sizeof(frame); /* more than a receive takes */
			break;
		}
		connect_control(session);
		memcpy(frame, &bad, sizeof(bad));
		if (ask_raw(session, frame, length, NULL, 0))
			die("malformed frame %d was answered", index);
		drop(&session->control);
	}
	victim_goes_on("malformed requests");
}

/* A request that must fail; the queue fails with it and is made anew. */
static void fails(int opcode, uint64_t address, uint32_t key, uint32_t bytes, const char *what)
{
	static int number = 1;

	memset(page.bytes, 0x66, 4096);
	if (!transfer(&own_data, &page, opcode, address, key, bytes))
		die("%s was carried out", what);
	drop(&own_data);
	number = number % 60 + 1;
	if (connect_data(&own, &own_data, number, own.lease.token))
		die("after %s: no new data queue", what);
	make_page(&own_data, &page);
}

static void memory(void)
{
	struct fm_slabs slabs = { .first = 1, .count = 1 };
	uint64_t base = own.lease.base, others = victim.lease.base;
	uint32_t key = grant(&own, 0), returned = grant(&own, 1);

	fails(IBV_WR_RDMA_READ, others + 4096, victim_rkey, 4096, "a READ under the victim's key");
	fails(IBV_WR_RDMA_WRITE, others + 4096, victim_rkey, 4096, "a WRITE under the victim's key");
	fails(IBV_WR_RDMA_READ, base + SLAB - 2048, key, 4096, "a READ across the slab's border");
	fails(IBV_WR_RDMA_WRITE, base + SLAB - 1, key, 2, "a WRITE across the slab's border");
	fails(IBV_WR_RDMA_READ, base - 4096, key, 4096, "a READ before the lease");
	fails(IBV_WR_RDMA_READ, base + 8 * SLAB, key, 4096, "a READ behind the lease");
	fails(IBV_WR_RDMA_READ, 0, key, 4096, "a READ of address 0");
	fails(IBV_WR_RDMA_READ, ~0ull - 2048, key, 4096, "a READ around the end of all addresses");
	for (uint32_t guess = 0; guess < 4; guess++)
		fails(IBV_WR_RDMA_READ, base, key ^ (guess + 1), 4096, "a READ under a guessed key");
	if (ask(&own, FM_FRAME_RETURN, &slabs, sizeof(slabs), NULL, 0) != FM_FRAME_OK)
		die("RETURN was not taken");
	fails(IBV_WR_RDMA_WRITE, base + SLAB, returned, 4096, "a WRITE to a returned slab");
	victim_goes_on("requests for memory");
}

static void floods(void)
{
	time_t start;
	int open = 0;

	/* Sessions that never say anything; the oldest have to go for the newest. */
	for (int index = 0; index < FLOOD; index++) {
		const struct fm_rdma_connect request = { .magic = FM_RDMA_MAGIC, .version_min = 1, .version_max = 1 };

		open += !try_connect(&passing[index].control, &request, sizeof(request));
	}
	if (open < 10)
		die("the flood made %d connections only: it shows nothing", open);
	start = time(NULL);
	{
		static struct session honest;

		as(victim_key);
		begin(&honest, "honest", SLAB);
		if (ask(&honest, FM_FRAME_RELEASE, NULL, 0, NULL, 0) != FM_FRAME_OK)
			die("RELEASE was not taken");
		drop(&honest.control);
		as(own_key);
	}
	if (time(NULL) - start > 8)
		die("beside %d connections a new client waited for %ld s", open, (long)(time(NULL) - start));
	victim_goes_on("a flood of connections");

	/* Requests without taking the answers: the session ends, or the client waits; nobody else does. */
	for (int index = 0; index < 64; index++) {
		struct fm_frame_header ping = { .magic = FM_WIRE_MAGIC, .version = 1, .type = FM_FRAME_PING };

		memcpy(own.buffer[0], &ping, sizeof(ping));
		if (own.mr) {
			struct ibv_sge part = { .addr = (uintptr_t)own.buffer[0], .length = sizeof(ping), .lkey = own.mr->lkey };
			struct ibv_send_wr work = { .sg_list = &part, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad;

			ibv_post_send(own.control.id->qp, &work, &bad);
		}
	}
	victim_goes_on("a flood of requests");
}

int main(int argc, char **argv)
{
	if (argc != 7)
		die("usage: hostile HOST PORT VICTIM-KEY VICTIM-HEX OWN-KEY OWN-HEX");
	host = argv[1];
	port = argv[2];
	memcpy(victim_key, &argv[3], sizeof(victim_key));
	memcpy(own_key, &argv[5], sizeof(own_key));

	as(victim_key);
	begin(&victim, "victim", 8 * SLAB);
	victim_rkey = grant(&victim, 0);
	if (connect_data(&victim, &victim_data, 1, victim.lease.token))
		die("the victim's data queue is not connected");
	make_page(&victim_data, &victim_page);
	memset(victim_page.bytes, 0x5a, 4096);
	if (transfer(&victim_data, &victim_page, IBV_WR_RDMA_WRITE, victim.lease.base + 4096, victim_rkey, 4096))
		die("the victim's WRITE failed");

	as(own_key);
	begin(&own, "hostile", 8 * SLAB);
	if (connect_data(&own, &own_data, 1, own.lease.token))
		die("the data queue is not connected");
	make_page(&own_data, &page);

	connections();
	strangers();
	requests();
	memory();
	floods();
	if (ask(&victim, FM_FRAME_RELEASE, NULL, 0, NULL, 0) != FM_FRAME_OK)
		die("the victim's RELEASE was not taken");
	return 0;
}
