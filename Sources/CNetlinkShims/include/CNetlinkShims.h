/*
 * The kernel's NBD client (nbd.ko) and farmem.ko over generic netlink, by libnl-genl-3.
 * Interfaces: include/uapi/linux/nbd-netlink.h, drivers/block/nbd.c; farmem_uapi.h. Control path only: libnl allocates.
 * Every call returns 0 or a positive answer, or a negative errno. One thread at a time per call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "../../../kernel-patch/module/farmem_uapi.h"

/* 0 when the running kernel has the nbd family, -ENOENT when not. */
int fm_nbd_probe(void);

struct fm_nbd_setup {
	uint64_t size_bytes;
	uint64_t block_bytes;
	uint64_t timeout_seconds;      /* of one request, before its connection is declared dead */
	uint64_t dead_timeout_seconds; /* how long requests wait for a new connection */
	uint64_t server_flags;	       /* NBD transmission flags, as the server announced them */
	const char *identifier;	       /* names the device in sysfs (backend), may be NULL */
};

/* Hands connected sockets, handshake done, to the kernel. Returns the device's index. */
int fm_nbd_connect(const struct fm_nbd_setup *setup, const int *sockets, int count);
/* Gives an existing device new sockets in place of dead ones. */
int fm_nbd_reconfigure(int index, const struct fm_nbd_setup *setup, const int *sockets, int count);
int fm_nbd_disconnect(int index);
/* 1 connected, 0 not, or a negative errno. */
int fm_nbd_is_connected(int index);

/* A socket that gets LINK_DEAD notices; -errno. It is the caller's to close. */
int fm_nbd_monitor_open(void);
/* The index of a device one of whose links died, -EAGAIN when there is no notice. */
int fm_nbd_monitor_next(int monitor);

/* 0 when farmem.ko is loaded, -ENOENT when not. */
int fm_module_probe(void);

struct fm_module_attribute {
	int type; /* enum farmem_attribute */
	const void *data;
	int length;
};

#define FM_MODULE_ANSWER_MAX 8192
#define FM_MODULE_REASON_MAX 256

struct fm_module_answer {
	void *bytes; /* the caller's, FM_MODULE_ANSWER_MAX of them */
	int length;  /* of the answer's attributes; 0 when there was no answer but the acknowledgment */
	char reason[FM_MODULE_REASON_MAX]; /* the kernel's words when it refused */
};

/* Sends one command (enum farmem_command) and waits for the kernel's answer. 0 or -errno. */
int fm_module_ask(int command, const struct fm_module_attribute *attributes, int count,
		  struct fm_module_answer *answer);
