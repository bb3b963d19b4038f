/*
 * The kernel's NBD client (nbd.ko) over generic netlink, by libnl-genl-3.
 * Interface: include/uapi/linux/nbd-netlink.h, drivers/block/nbd.c. Control path only: libnl allocates.
 * Every call returns 0 or a positive answer, or a negative errno. One thread at a time per call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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
