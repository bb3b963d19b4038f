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

/**
 * enum farmem_command - what can be asked
 * @FARMEM_CMD_UNSPEC: not used
 * @FARMEM_CMD_ATTACH: make a device: NAME, BACKEND, SIZE, and if wanted
 *	CAPACITY and RESERVE. Answers like STATUS. EEXIST when the name is
 *	taken, EINVAL for a size that is none, ENOENT for an unknown backend.
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
 * @FARMEM_A_BACKEND: string; "dram"
 * @FARMEM_A_SIZE: u64, bytes that the device has addresses for, whole pages
 * @FARMEM_A_CAPACITY: u64, bytes that it may hold at one time, whole pages;
 *	SIZE when it is not given. A write beyond it fails with ENOSPC.
 * @FARMEM_A_RESERVE: flag; CAPACITY is set aside when the device is attached
 * @FARMEM_A_DISK: string, in answers: the device is /dev/DISK
 * @FARMEM_A_USED: u64, in answers: bytes held now
 * @FARMEM_A_OPENERS: u32, in answers: how often it is open
 * @FARMEM_A_COUNTERS: nest, in answers: u64 by &enum farmem_counter
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
 * @FARMEM_C_READ_ERRORS: reads that the backend failed
 * @FARMEM_C_WRITE_ERRORS: writes that the backend failed, but for the next two
 * @FARMEM_C_REJECTED_CAPACITY: writes refused: the capacity is in use
 * @FARMEM_C_REJECTED_MEMORY: writes refused: the host gave no page
 * @FARMEM_C_REJECTED_RANGE: requests beyond the device's end
 * @FARMEM_C_REJECTED_ALIGNMENT: requests that are not of whole pages
 * @FARMEM_C_REJECTED_OPERATION: requests of an unknown kind
 * @FARMEM_C_REJECTED_GONE: requests to a device that is being detached
 * @FARMEM_C_INJECTED: reads and writes failed by the parameters for tests
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
	__FARMEM_C_AFTER_LAST,
	FARMEM_C_MAX = __FARMEM_C_AFTER_LAST - 1
};

#endif /* _FARMEM_UAPI_H */
