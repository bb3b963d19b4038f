/*
 * RDMA by librdmacm and libibverbs: connections, memory, queues. Thin: no policy, and no state but the libraries' own.
 *
 * Calls return -1 (or NULL) with errno set, whatever the library's own convention is. All but fm_rdma_listen and
 * fm_rdma_resolve_address, which may ask the resolver, return at once. Objects are destroyed in the reverse order of their making: queues before
 * the completion queues and domains they were made with, memory before its domain.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_rdma_channel fm_rdma_channel; /* of connection events */
typedef struct fm_rdma_id fm_rdma_id;		/* a listener or a connection */
typedef struct fm_rdma_domain fm_rdma_domain;	/* a protection domain */
typedef struct fm_rdma_memory fm_rdma_memory;	/* a memory region */
typedef struct fm_rdma_cq fm_rdma_cq;		/* a completion queue and its event channel */

/* Connection events. */

enum fm_rdma_event_kind {
	FM_RDMA_EVENT_NONE = 0, /* of no interest */
	FM_RDMA_EVENT_ADDRESS_RESOLVED,
	FM_RDMA_EVENT_ROUTE_RESOLVED,
	FM_RDMA_EVENT_CONNECT_REQUEST,
	FM_RDMA_EVENT_ESTABLISHED,
	FM_RDMA_EVENT_REJECTED,
	FM_RDMA_EVENT_UNREACHABLE, /* no address, no route, no answer, or an answer that made no connection */
	FM_RDMA_EVENT_DISCONNECTED,
	FM_RDMA_EVENT_DEVICE_REMOVED,
};

#define FM_RDMA_PRIVATE_MAX 256

struct fm_rdma_event {
	uint32_t kind;
	int32_t status;	    /* an errno where there is one, or the reason of a rejection; else 0 */
	fm_rdma_id *id;	    /* of a CONNECT_REQUEST: the new connection, the receiver's to destroy */
	uint64_t context;   /* of the id the event is for; of a CONNECT_REQUEST: the listener's */
	uint8_t reads_in;   /* of a CONNECT_REQUEST: READs that the peer wants to have under way at most */
	uint8_t private_length;
	uint8_t private_data[FM_RDMA_PRIVATE_MAX];
};

/* A channel whose descriptor is readable when an event waits; ENODEV where the kernel has no RDMA. */
fm_rdma_channel *fm_rdma_channel_open(void);
void fm_rdma_channel_close(fm_rdma_channel *channel);
int fm_rdma_channel_fd(const fm_rdma_channel *channel);
/* 1 with an event, 0 when there is none. The event is a copy: nothing is to be acknowledged. */
int fm_rdma_channel_next(fm_rdma_channel *channel, struct fm_rdma_event *event);

/* Connections. */

/* Listens on an address and port in text; the id is bound to a device unless the address is a wildcard. */
fm_rdma_id *fm_rdma_listen(fm_rdma_channel *channel, const char *host, const char *port, int backlog, uint64_t context);
/* The port that an id is bound to. */
int fm_rdma_local_port(const fm_rdma_id *id);
fm_rdma_id *fm_rdma_make(fm_rdma_channel *channel, uint64_t context);
void fm_rdma_set_context(fm_rdma_id *id, uint64_t context);
/* ADDRESS_RESOLVED comes, or UNREACHABLE. errno EHOSTUNREACH when the name is not known. */
int fm_rdma_resolve_address(fm_rdma_id *id, const char *host, const char *port, int timeout_ms);
/* ROUTE_RESOLVED comes, or UNREACHABLE. */
int fm_rdma_resolve_route(fm_rdma_id *id, int timeout_ms);
/* How long a packet's acknowledgement is waited for: 4.096 us * 2^exponent. Before connect or accept. */
int fm_rdma_set_ack_timeout(fm_rdma_id *id, uint8_t exponent);

struct fm_rdma_parameters {
	const void *private_data;
	uint8_t private_length;
	uint8_t reads_in;      /* READs of the peer that we serve at once */
	uint8_t reads_out;     /* READs of ours */
	uint8_t retries;       /* of a packet, 0 to 7; accepting takes the peer's */
	uint8_t retries_ready; /* of a message that found no receive: 0 to 6, 7 for ever */
};

int fm_rdma_connect(fm_rdma_id *id, const struct fm_rdma_parameters *parameters);
int fm_rdma_accept(fm_rdma_id *id, const struct fm_rdma_parameters *parameters);
int fm_rdma_reject(fm_rdma_id *id, const void *private_data, uint8_t length);
int fm_rdma_disconnect(fm_rdma_id *id);
/* Waits until events taken off the channel by another thread are no longer in that thread's hands. */
void fm_rdma_destroy(fm_rdma_id *id);
/* Whether two connections are on the same device. */
bool fm_rdma_same_device(const fm_rdma_id *a, const fm_rdma_id *b);

struct fm_rdma_device {
	char name[64];
	uint32_t reads_in_max; /* per queue pair */
	uint32_t reads_out_max;
	uint32_t queue_depth_max;
	uint32_t completions_max; /* of one completion queue */
	uint64_t regions_max;
	uint64_t region_bytes_max;
};

int fm_rdma_query_device(const fm_rdma_id *id, struct fm_rdma_device *device);

/* Memory. */

enum fm_rdma_access { FM_RDMA_LOCAL = 0, FM_RDMA_REMOTE_READ = 1, FM_RDMA_REMOTE_WRITE = 2 };

fm_rdma_domain *fm_rdma_domain_make(const fm_rdma_id *id);
int fm_rdma_domain_destroy(fm_rdma_domain *domain);
/* address: where peers find the memory; equal to the memory's own below a page. Local writes are always allowed. */
fm_rdma_memory *fm_rdma_register(fm_rdma_domain *domain, void *memory, size_t length, uint64_t address, int access);
uint32_t fm_rdma_local_key(const fm_rdma_memory *memory);
uint32_t fm_rdma_remote_key(const fm_rdma_memory *memory);
int fm_rdma_deregister(fm_rdma_memory *memory);

/* Queues. */

fm_rdma_cq *fm_rdma_cq_make(const fm_rdma_id *id, int entries);
void fm_rdma_cq_destroy(fm_rdma_cq *cq);
int fm_rdma_cq_fd(const fm_rdma_cq *cq);
/* Asks for the descriptor to become readable with the next completion. Completions that came before count not: poll after it. */
int fm_rdma_cq_arm(fm_rdma_cq *cq);
/* Takes what made the descriptor readable. */
void fm_rdma_cq_quiet(fm_rdma_cq *cq);

struct fm_rdma_completion {
	uint64_t id;
	uint32_t status; /* 0 good */
	uint32_t bytes;	 /* received */
};

int fm_rdma_cq_poll(fm_rdma_cq *cq, struct fm_rdma_completion *completions, int count);
const char *fm_rdma_status_text(uint32_t status);

/* Gives a connection its pair of queues; completions of both go to cq. */
int fm_rdma_queues_make(fm_rdma_id *id, fm_rdma_domain *domain, fm_rdma_cq *cq, uint32_t sends, uint32_t receives);
void fm_rdma_queues_destroy(fm_rdma_id *id);

enum fm_rdma_operation { FM_RDMA_SEND = 0, FM_RDMA_READ = 1, FM_RDMA_WRITE = 2 };

struct fm_rdma_work {
	uint64_t id;
	void *local;
	uint64_t remote_address;
	uint32_t bytes;
	uint32_t local_key;
	uint32_t remote_key;
	uint8_t operation;
	bool is_silent; /* no completion unless it fails */
};

/* Posts a chain with one doorbell, at most FM_RDMA_CHAIN_MAX. Returns how many were posted: fewer than count only with errno set. */
#define FM_RDMA_CHAIN_MAX 64
int fm_rdma_post(fm_rdma_id *id, const struct fm_rdma_work *work, int count);
int fm_rdma_post_receive(fm_rdma_id *id, uint64_t work_id, void *memory, uint32_t bytes, uint32_t local_key);
