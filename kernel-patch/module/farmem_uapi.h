/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The generic netlink family of farmem.ko.
 *
 * Every command needs CAP_SYS_ADMIN in the first user namespace. Errors come
 * back as the errno of the acknowledgment, with a line of text for people
 * (NLMSGERR_ATTR_MSG, when NETLINK_EXT_ACK is set on the socket).
 */
#ifndef _FARMEM_UAPI_H
#define _FARMEM_UAPI_H

#define FARMEM_GENL_NAME	"farmem"
#define FARMEM_GENL_VERSION	1

/* With the final zero. */
#define FARMEM_NAME_SIZE	32
#define FARMEM_LEASE_SIZE	64
#define FARMEM_SECRET_SIZE	256
#define FARMEM_PATH_SIZE	256

#define FARMEM_LATENCY_BUCKETS	28

/**
 * enum farmem_command - what can be asked
 * @FARMEM_CMD_UNSPEC: not used
 * @FARMEM_CMD_ATTACH: make a device: NAME, BACKEND, SIZE, and if wanted
 *	CAPACITY and RESERVE; for "rdma" ADDRESS, PORT and LEASE, too, and if
 *	wanted the attributes after them. Answers like STATUS. EEXIST when the
 *	name is taken, EINVAL for a size that is none, ENOENT for an unknown
 *	backend; a server that cannot be reached or refuses is told in words.
 * @FARMEM_CMD_DETACH: remove the device NAME and what it holds. EBUSY while
 *	it is open, swapped on or mounted, ENODEV when there is none.
 * @FARMEM_CMD_STATUS: of the device NAME, or as a dump of all devices.
 */
enum farmem_command {
	FARMEM_CMD_UNSPEC,
	FARMEM_CMD_ATTACH,
	FARMEM_CMD_DETACH,
	FARMEM_CMD_STATUS,
	__FARMEM_CMD_AFTER_LAST,
	FARMEM_CMD_MAX = __FARMEM_CMD_AFTER_LAST - 1
};

/**
 * enum farmem_attribute - the words of a message
 * @FARMEM_A_UNSPEC: not used
 * @FARMEM_A_PAD: not used, aligns others
 * @FARMEM_A_NAME: string; letters, digits, '.', '_' and '-'
 * @FARMEM_A_BACKEND: string; "dram" or "rdma"
 * @FARMEM_A_SIZE: u64, bytes that the device has addresses for, whole pages
 * @FARMEM_A_CAPACITY: u64, bytes that it may hold at one time, whole pages;
 *	SIZE when it is not given. A write beyond it fails with ENOSPC.
 * @FARMEM_A_RESERVE: flag; CAPACITY is set aside when the device is attached
 * @FARMEM_A_DISK: string, in answers: the device is /dev/DISK
 * @FARMEM_A_USED: u64, in answers: bytes held now
 * @FARMEM_A_OPENERS: u32, in answers: how often it is open
 * @FARMEM_A_COUNTERS: nest, in answers: u64 by &enum farmem_counter
 * @FARMEM_A_READ_LATENCY: u64[FARMEM_LATENCY_BUCKETS], in answers: reads that
 *	took less than 1 us, then 1, 2-3, 4-7 us and so on; the last has the rest
 * @FARMEM_A_WRITE_LATENCY: the same for writes
 * @FARMEM_A_ADDRESS: string, IPv4 or IPv6, of the server
 * @FARMEM_A_PORT: u16; 50000 when it is not given
 * @FARMEM_A_LEASE: string, the lease's name there; NAME when it is not given
 * @FARMEM_A_KEY_NAME: string, of the key to show
 * @FARMEM_A_KEY_SECRET: bytes; in no answer
 * @FARMEM_A_ATTACH_DEADLINE: u32, ms for the attach (5000)
 * @FARMEM_A_READ_DEADLINE: u32, ms for a read, over all its tries (30000)
 * @FARMEM_A_WRITE_DEADLINE: u32, ms for a write (5000)
 * @FARMEM_A_QUEUES: u16, data queues wanted at most; in answers those there are
 * @FARMEM_A_POLL: flag; reads of one page spin until it is there
 * @FARMEM_A_SYNCHRONOUS: flag; one page per round trip, for comparisons
 * @FARMEM_A_STATE: string, in answers: "live", "reconnecting" or "lost" (the
 *	server has the lease no more: what was in it is gone)
 * @FARMEM_A_SLAB: u32, in answers: bytes of a slab, the unit of USED
 * @FARMEM_A_FRONTEND: string; "block" makes a disk, and is what is meant when
 *	it is not given. "frontswap" keeps the pages of the swap area AREA, from
 *	its next swapon on; EOPNOTSUPP when the kernel cannot, ENXIO when there is
 *	no AREA, EBUSY when it is swapped on or another device's. There is no
 *	DISK then, and OPENERS is 1 while the area is swapped on.
 * @FARMEM_A_AREA: string, the path of a disk or file
 */
enum farmem_attribute {
	FARMEM_A_UNSPEC,
	FARMEM_A_PAD,
	FARMEM_A_NAME,
	FARMEM_A_BACKEND,
	FARMEM_A_SIZE,
	FARMEM_A_CAPACITY,
	FARMEM_A_RESERVE,
	FARMEM_A_DISK,
	FARMEM_A_USED,
	FARMEM_A_OPENERS,
	FARMEM_A_COUNTERS,
	FARMEM_A_READ_LATENCY,
	FARMEM_A_WRITE_LATENCY,
	FARMEM_A_ADDRESS,
	FARMEM_A_PORT,
	FARMEM_A_LEASE,
	FARMEM_A_KEY_NAME,
	FARMEM_A_KEY_SECRET,
	FARMEM_A_ATTACH_DEADLINE,
	FARMEM_A_READ_DEADLINE,
	FARMEM_A_WRITE_DEADLINE,
	FARMEM_A_QUEUES,
	FARMEM_A_POLL,
	FARMEM_A_SYNCHRONOUS,
	FARMEM_A_STATE,
	FARMEM_A_SLAB,
	FARMEM_A_FRONTEND,
	FARMEM_A_AREA,
	__FARMEM_A_AFTER_LAST,
	FARMEM_A_MAX = __FARMEM_A_AFTER_LAST - 1
};

/**
 * enum farmem_counter - counted since the device was attached
 * @FARMEM_C_UNSPEC: not used
 * @FARMEM_C_PAD: not used, aligns others
 * @FARMEM_C_PAGES_READ: pages read, all well
 * @FARMEM_C_PAGES_WRITTEN: pages written, all well
 * @FARMEM_C_PAGES_DISCARDED: pages that discards named, held or not
 * @FARMEM_C_SLOTS_FREED: pages that the kernel's swap said it let go
 * @FARMEM_C_READ_ERRORS: reads that the backend failed, but for those below
 * @FARMEM_C_WRITE_ERRORS: writes that the backend failed, but for those below
 * @FARMEM_C_REJECTED_CAPACITY: writes refused: the capacity is in use
 * @FARMEM_C_REJECTED_MEMORY: writes refused: the host gave no page
 * @FARMEM_C_REJECTED_RANGE: requests beyond the device's end
 * @FARMEM_C_REJECTED_ALIGNMENT: requests that are not of whole pages
 * @FARMEM_C_REJECTED_OPERATION: requests of an unknown kind
 * @FARMEM_C_REJECTED_GONE: requests to a device that is being detached
 * @FARMEM_C_INJECTED: reads and writes failed by the parameters for tests
 * @FARMEM_C_READS_TIMED_OUT: reads not done by their deadline
 * @FARMEM_C_WRITES_TIMED_OUT: writes not done by their deadline
 * @FARMEM_C_READS_LOST: reads of pages that were lost with their lease
 * @FARMEM_C_REJECTED_LOST: writes refused: the lease is lost
 * @FARMEM_C_REJECTED_SERVER: writes refused: the server granted no slab
 * @FARMEM_C_COMPLETION_ERRORS: work requests that the RDMA device failed
 * @FARMEM_C_REPEATED: work requests repeated on another session
 * @FARMEM_C_SESSIONS: sessions opened
 * @FARMEM_C_SLABS_GRANTED: slabs that the server granted
 * @FARMEM_C_SLABS_RETURNED: slabs given back to it
 * @FARMEM_C_FAULTS: of frontswap: reads that faults waited for, the others are
 *	readahead
 * @FARMEM_C_POLLS: of frontswap: how often a fault polled for its page
 * @FARMEM_C_DEFERRED: reads and writes deferred by the parameter for tests
 */
enum farmem_counter {
	FARMEM_C_UNSPEC,
	FARMEM_C_PAD,
	FARMEM_C_PAGES_READ,
	FARMEM_C_PAGES_WRITTEN,
	FARMEM_C_PAGES_DISCARDED,
	FARMEM_C_SLOTS_FREED,
	FARMEM_C_READ_ERRORS,
	FARMEM_C_WRITE_ERRORS,
	FARMEM_C_REJECTED_CAPACITY,
	FARMEM_C_REJECTED_MEMORY,
	FARMEM_C_REJECTED_RANGE,
	FARMEM_C_REJECTED_ALIGNMENT,
	FARMEM_C_REJECTED_OPERATION,
	FARMEM_C_REJECTED_GONE,
	FARMEM_C_INJECTED,
	FARMEM_C_READS_TIMED_OUT,
	FARMEM_C_WRITES_TIMED_OUT,
	FARMEM_C_READS_LOST,
	FARMEM_C_REJECTED_LOST,
	FARMEM_C_REJECTED_SERVER,
	FARMEM_C_COMPLETION_ERRORS,
	FARMEM_C_REPEATED,
	FARMEM_C_SESSIONS,
	FARMEM_C_SLABS_GRANTED,
	FARMEM_C_SLABS_RETURNED,
	FARMEM_C_FAULTS,
	FARMEM_C_POLLS,
	FARMEM_C_DEFERRED,
	__FARMEM_C_AFTER_LAST,
	FARMEM_C_MAX = __FARMEM_C_AFTER_LAST - 1
};

#endif /* _FARMEM_UAPI_H */
