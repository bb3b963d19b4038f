/*
 * A client of memserver's RDMA listener that is written from docs/protocol.md and the header alone, with nothing of Farmem's own
 * clients in it: what it can do, others can, and what it must not do it tries.
 */
#pragma once

#include <stdint.h>
#include <rdma/rdma_cma.h>

#include "CWireFormat.h"

struct queue {
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	uint8_t private_data[256]; /* of the answer, accepted or not */
	int rejected;
};

struct session {
	struct queue control;
	char buffer[2][4096];
	struct ibv_mr *mr;
	uint32_t cookie;
	struct fm_opened_rdma lease;
};

struct page {
	uint8_t bytes[4096] __attribute__((aligned(4096)));
	struct ibv_mr *mr;
};

extern const char *host, *port, *key_name, *key_hex;

void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* 0 connected, 1 refused by the peer, -1 no connection. */
int try_connect(struct queue *queue, const void *private_data, size_t length);
void drop(struct queue *queue);

/* Sends a frame and waits for the answer: its type, or 0 when the connection ended instead. */
int ask_raw(struct session *session, const void *frame, size_t length, void *payload, size_t room);
int ask(struct session *session, int type, const void *payload, size_t length, void *answer, size_t room);
/* The code of the error that a request is answered with; 0 when it is not an error, -1 when the connection ended. */
int error_of(struct session *session, int type, const void *payload, size_t length);

void connect_control(struct session *session);
void say_hello(struct session *session, struct fm_welcome *welcome);
void authenticate(struct session *session, const struct fm_welcome *welcome);
void open_lease(struct session *session, const char *name, uint64_t size);
/* All of it: to an open lease. */
void begin(struct session *session, const char *name, uint64_t size);
uint32_t grant(struct session *session, uint32_t slab);
int connect_data(struct session *session, struct queue *queue, int number, const uint8_t *token);
void make_page(struct queue *queue, struct page *page);
/* The completion's status: 0 good. */
int transfer(struct queue *queue, struct page *page, int opcode, uint64_t address, uint32_t key, uint32_t bytes);
