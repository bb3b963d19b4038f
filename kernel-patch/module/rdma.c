// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: the backend rdma keeps pages in a memserver's memory and moves them
 * by one-sided READ and WRITE. docs/protocol.md has the protocol.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <crypto/hash.h>
#include <linux/inet.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <net/net_namespace.h>
#include <net/netlink.h>

#include "rdma.h"

static void destroy(struct rdma_far *far)
{
	rdma_lanes_destroy(far);
	rdma_slabs_destroy(far);
	if (far->hmac)
		crypto_free_shash(far->hmac);
	kfree(far->control.frames);
	put_net(far->net);
	kfree(far);
}

static void rdma_detach(struct farmem_device *device)
{
	struct rdma_far *far = device->backend_data;

	device->backend_data = NULL;
	kthread_stop(far->thread);
	del_timer_sync(&far->timer);
	destroy(far);
}

static int read_options(struct rdma_far *far, const struct farmem_options *options)
{
	char port[8];

	far->problem = "farmem: rdma needs the address of a server";
	if (!options->address)
		return -EINVAL;
	snprintf(port, sizeof(port), "%u", options->port);
	far->problem = "farmem: the address is neither IPv4 nor IPv6, or the port is 0";
	if (!options->port ||
	    inet_pton_with_scope(far->net, AF_UNSPEC, options->address, port, &far->address))
		return -EINVAL;
	far->problem = "farmem: rdma sets aside the whole size or nothing";
	if (far->device->reserve && far->device->capacity != far->device->size)
		return -EINVAL;
	far->problem = "farmem: a lease's name has 1 to 63 characters";
	if (!*options->lease || strlen(options->lease) >= sizeof(far->lease))
		return -EINVAL;
	far->problem = "farmem: a key needs both its name and its secret";
	if (!options->key_name != !options->secret_size)
		return -EINVAL;
	strscpy(far->address_text, options->address, sizeof(far->address_text));
	strscpy(far->lease, options->lease, sizeof(far->lease));
	far->port = options->port;
	far->attach_ms = options->attach_ms;
	far->read_ms = options->read_ms;
	far->write_ms = options->write_ms;
	far->queues_wanted = options->queues;
	far->poll = options->poll;
	far->synchronous = options->synchronous;
	return rdma_set_key(far, options);
}

static int rdma_attach(struct farmem_device *device, struct farmem_options *options)
{
	struct rdma_far *far = kzalloc(sizeof(*far), GFP_KERNEL);
	int error = -ENOMEM;

	if (!far)
		return error;
	far->device = device;
	far->net = get_net(options->net);
	far->control.queue.far = far;
	far->control.frames = kcalloc(RDMA_RECEIVES + 1, sizeof(struct rdma_frame), GFP_KERNEL);
	init_waitqueue_head(&far->wake);
	init_completion(&far->attached);
	spin_lock_init(&far->todo_lock);
	INIT_LIST_HEAD(&far->grants);
	INIT_LIST_HEAD(&far->returns);
	timer_setup(&far->timer, rdma_timer, 0);
	if (far->control.frames)
		error = read_options(far, options);
	if (error)
		goto fail;
	far->thread = kthread_run(rdma_session_thread, far, "farmem/%s", device->name);
	if (IS_ERR(far->thread)) {
		error = PTR_ERR(far->thread);
		goto fail;
	}
	wait_for_completion(&far->attached);
	device->backend_data = far;
	error = far->attach_error;
	if (!error)
		return 0;
	options->problem = far->problem;
	pr_info("%s: %s (%d)\n", device->name, far->problem, error);
	rdma_detach(device);
	return error;

fail:
	options->problem = far->problem;
	destroy(far);
	return error;
}

static u64 rdma_used(struct farmem_device *device)
{
	struct rdma_far *far = device->backend_data;

	return (u64)READ_ONCE(far->held) * far->slab_pages;
}

static int rdma_put_status(struct farmem_device *device, struct sk_buff *message)
{
	static const char *const states[] = { "reconnecting", "live", "lost" };
	struct rdma_far *far = device->backend_data;

	if (nla_put_string(message, FARMEM_A_ADDRESS, far->address_text) ||
	    nla_put_u16(message, FARMEM_A_PORT, far->port) ||
	    nla_put_string(message, FARMEM_A_LEASE, far->lease) ||
	    (far->hmac && nla_put_string(message, FARMEM_A_KEY_NAME, far->key_name)) ||
	    nla_put_u32(message, FARMEM_A_ATTACH_DEADLINE, far->attach_ms) ||
	    nla_put_u32(message, FARMEM_A_READ_DEADLINE, far->read_ms) ||
	    nla_put_u32(message, FARMEM_A_WRITE_DEADLINE, far->write_ms) ||
	    nla_put_u16(message, FARMEM_A_QUEUES, far->lane_count) ||
	    (far->poll && nla_put_flag(message, FARMEM_A_POLL)) ||
	    (far->synchronous && nla_put_flag(message, FARMEM_A_SYNCHRONOUS)) ||
	    nla_put_string(message, FARMEM_A_STATE, states[READ_ONCE(far->state)]) ||
	    nla_put_u32(message, FARMEM_A_SLAB, far->slab_pages << PAGE_SHIFT))
		return -EMSGSIZE;
	return 0;
}

const struct farmem_backend farmem_rdma = {
	.name = "rdma",
	.attach = rdma_attach,
	.detach = rdma_detach,
	.submit = rdma_submit,
	.discard = rdma_discard,
	.used = rdma_used,
	.put_status = rdma_put_status,
};
