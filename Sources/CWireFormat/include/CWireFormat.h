/*
 * The control protocol of shared-memory and RDMA leases and the headers of the pool's bitmap files, as
 * they lie on the wire and on tmpfs. Little-endian, packed. docs/protocol.md describes them in prose.
 * The kernel module includes this file, too.
 */
#pragma once

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
#else
#include <stdint.h>
#endif

/* 'F' 'M' 'E' 'M' as bytes on the wire. */
#define FM_WIRE_MAGIC 0x4d454d46u
#define FM_WIRE_VERSION 1
/* Longest payload of one frame in bytes; a longer one closes the connection. */
#define FM_WIRE_PAYLOAD_MAX 512
#define FM_WIRE_NAME_MAX 64
#define FM_WIRE_TEXT_MAX 200
#define FM_WIRE_CHALLENGE_BYTES 32
#define FM_WIRE_MAC_BYTES 32

enum fm_frame_type {
	FM_FRAME_HELLO = 1,
	FM_FRAME_WELCOME = 2,
	FM_FRAME_AUTH = 3,
	FM_FRAME_OK = 4,
	FM_FRAME_ERROR = 5,
	FM_FRAME_OPEN = 6,
	FM_FRAME_OPENED = 7,
	FM_FRAME_GRANT = 8,
	FM_FRAME_GRANTED = 9,
	FM_FRAME_RETURN = 10,
	FM_FRAME_PING = 11,
	FM_FRAME_PONG = 12,
	FM_FRAME_CLOSE = 13,
	FM_FRAME_RELEASE = 14,
	/* Over RDMA only. */
	FM_FRAME_OPENED_RDMA = 15,
	FM_FRAME_GRANTED_KEYS = 16,
	FM_FRAME_HELD = 17,
	FM_FRAME_RESUME = 18,
};

enum fm_open_flag { FM_OPEN_CREATE = 1, FM_OPEN_EXCLUSIVE = 2 };

enum fm_error_code {
	FM_ERROR_VERSION = 1,	   /* no common version */
	FM_ERROR_UNAUTHORIZED = 2, /* no key, an unknown one, or a wrong answer */
	FM_ERROR_NO_LEASE = 3,	   /* no lease of that name, and create was not asked */
	FM_ERROR_BUSY = 4,	   /* another session has it open */
	FM_ERROR_NO_SPACE = 5,	   /* capacity or quota is used up */
	FM_ERROR_BAD_REQUEST = 6,  /* out of range, out of order, wrong size */
	FM_ERROR_EXISTS = 7,	   /* it exists with another size */
	FM_ERROR_NOT_EMPTY = 8,	   /* a slab to be returned holds pages */
	FM_ERROR_LIMIT = 9,	   /* too many sessions or leases */
	FM_ERROR_INTERNAL = 10,	   /* the server's own trouble */
};

struct fm_frame_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t length; /* of the payload */
	uint32_t cookie; /* chosen by the client, echoed in the reply */
} __attribute__((packed));

struct fm_hello {
	uint16_t version_min;
	uint16_t version_max;
	uint32_t features;		    /* none defined yet: 0 */
	char client_name[FM_WIRE_NAME_MAX]; /* padded with zero bytes */
} __attribute__((packed));

struct fm_welcome {
	uint16_t version;
	uint8_t auth_required;
	uint8_t reserved;
	uint32_t slab_bytes;
	uint32_t features;
	uint8_t challenge[FM_WIRE_CHALLENGE_BYTES];
} __attribute__((packed));

struct fm_auth {
	char key_name[FM_WIRE_NAME_MAX];
	uint8_t mac[FM_WIRE_MAC_BYTES];
} __attribute__((packed));

struct fm_open {
	char lease_name[FM_WIRE_NAME_MAX];
	uint64_t size; /* bytes; 0 takes an existing lease as it is */
	uint32_t flags;
	uint32_t reserved;
} __attribute__((packed));

struct fm_opened {
	uint64_t lease_id;
	uint64_t epoch;
	uint64_t size;
	uint32_t slab_bytes;
	uint32_t reserved;
} __attribute__((packed));

struct fm_slabs {
	uint32_t first;
	uint32_t count;
} __attribute__((packed));

struct fm_error {
	uint32_t code;
	char text[FM_WIRE_TEXT_MAX];
} __attribute__((packed));

/* 'F' 'M' 'R' 'D' as bytes on the wire. */
#define FM_RDMA_MAGIC 0x44524d46u
#define FM_RDMA_TOKEN_BYTES 16
#define FM_RDMA_TEXT_MAX 120
/* Keys that fit into one GRANTED_KEYS. */
#define FM_RDMA_KEYS_MAX 124

/* Private data of a connection request, in every queue of a session. */
struct fm_rdma_connect {
	uint32_t magic;
	uint16_t version_min;
	uint16_t version_max;
	uint16_t queue; /* 0: control; 1...: data */
	uint16_t reserved;
	uint32_t reserved2;
	uint64_t session; /* data queues: of OPENED_RDMA; control: 0 */
	uint8_t token[FM_RDMA_TOKEN_BYTES];
} __attribute__((packed));

/* Private data of an accepted connection. */
struct fm_rdma_accept {
	uint32_t magic;
	uint16_t version;
	uint16_t queue;
	uint16_t credits; /* control: requests that may wait for their reply; data: 0 */
	uint16_t reserved;
	uint32_t reserved2;
} __attribute__((packed));

/* Private data of a refused connection. */
struct fm_rdma_reject {
	uint32_t magic;
	uint16_t version;
	uint16_t code; /* enum fm_error_code */
	char text[FM_RDMA_TEXT_MAX];
} __attribute__((packed));

struct fm_opened_rdma {
	uint64_t lease_id;
	uint64_t epoch;
	uint64_t size;
	uint64_t base; /* remote address of the lease's first byte */
	uint32_t slab_bytes;
	uint16_t queues_max; /* data queues of this session */
	uint16_t reads_max;  /* READs that one queue may have under way: initiator_depth */
	uint64_t session;
	uint8_t token[FM_RDMA_TOKEN_BYTES];
	uint32_t silence_ms; /* a session that sends nothing for so long is ended */
	uint32_t reserved;
} __attribute__((packed));

/* The payload ends after count keys: 8 + 4 * count bytes. */
struct fm_granted_keys {
	uint32_t first;
	uint32_t count;
	uint32_t keys[FM_RDMA_KEYS_MAX];
} __attribute__((packed));

struct fm_resume {
	char lease_name[FM_WIRE_NAME_MAX];
	uint64_t session;
	uint8_t token[FM_RDMA_TOKEN_BYTES];
} __attribute__((packed));

/* Head of lease-ID.pages and lease-ID.grants; the bits follow, least significant first. */
struct fm_bitmap_header {
	uint64_t magic;
	uint64_t version;
	uint64_t bits;
	uint64_t epoch;
	uint64_t reserved[4];
} __attribute__((packed));

#define FM_BITMAP_VERSION 1
/* Where the epoch is. In lease-ID.pages it becomes 0 before the bits are cleared when the lease is ended. */
#define FM_BITMAP_EPOCH_OFFSET 24
#define FM_PAGES_MAGIC 0x7365676170454d46ull  /* "FMEpages" */
#define FM_GRANTS_MAGIC 0x746e617267454d46ull /* "FMEgrant" */

_Static_assert(sizeof(struct fm_frame_header) == 16, "frame header");
_Static_assert(sizeof(struct fm_hello) == 72, "hello");
_Static_assert(sizeof(struct fm_welcome) == 44, "welcome");
_Static_assert(sizeof(struct fm_auth) == 96, "auth");
_Static_assert(sizeof(struct fm_open) == 80, "open");
_Static_assert(sizeof(struct fm_opened) == 32, "opened");
_Static_assert(sizeof(struct fm_slabs) == 8, "slabs");
_Static_assert(sizeof(struct fm_error) == 204, "error");
_Static_assert(sizeof(struct fm_rdma_connect) == 40, "rdma connect");
_Static_assert(sizeof(struct fm_rdma_accept) == 16, "rdma accept");
_Static_assert(sizeof(struct fm_rdma_reject) == 128, "rdma reject");
_Static_assert(sizeof(struct fm_opened_rdma) == 72, "opened rdma");
_Static_assert(sizeof(struct fm_granted_keys) == 504, "granted keys");
_Static_assert(sizeof(struct fm_resume) == 88, "resume");
_Static_assert(sizeof(struct fm_bitmap_header) == 64, "bitmap header");
_Static_assert(__builtin_offsetof(struct fm_bitmap_header, epoch) == FM_BITMAP_EPOCH_OFFSET, "epoch");
