// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: attach, detach and status by generic netlink. farmem_uapi.h says
 * what a message holds.
 */
#include <linux/bits.h>
#include <linux/blkdev.h>
#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/err.h>
#include <linux/if.h>
#include <linux/inet.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <net/genetlink.h>

#include "farmem.h"

/* 16 TiB: numbers of sectors and tables stay far from their limits. */
#define PAGES_MAX BIT_ULL(32)

static struct genl_family family;

static const struct nla_policy policy[FARMEM_A_MAX + 1] = {
	[FARMEM_A_NAME] = { .type = NLA_NUL_STRING, .len = FARMEM_NAME_SIZE - 1 },
	[FARMEM_A_BACKEND] = { .type = NLA_NUL_STRING, .len = FARMEM_NAME_SIZE - 1 },
	[FARMEM_A_SIZE] = { .type = NLA_U64 },
	[FARMEM_A_CAPACITY] = { .type = NLA_U64 },
	[FARMEM_A_RESERVE] = { .type = NLA_FLAG },
	[FARMEM_A_ADDRESS] = { .type = NLA_NUL_STRING, .len = INET6_ADDRSTRLEN + IFNAMSIZ },
	[FARMEM_A_PORT] = { .type = NLA_U16 },
	[FARMEM_A_LEASE] = { .type = NLA_NUL_STRING, .len = FARMEM_LEASE_SIZE - 1 },
	[FARMEM_A_KEY_NAME] = { .type = NLA_NUL_STRING, .len = FARMEM_LEASE_SIZE - 1 },
	[FARMEM_A_KEY_SECRET] = { .type = NLA_BINARY, .len = FARMEM_SECRET_SIZE },
	[FARMEM_A_ATTACH_DEADLINE] = NLA_POLICY_MIN(NLA_U32, 1),
	[FARMEM_A_READ_DEADLINE] = NLA_POLICY_MIN(NLA_U32, 1),
	[FARMEM_A_WRITE_DEADLINE] = NLA_POLICY_MIN(NLA_U32, 1),
	[FARMEM_A_QUEUES] = { .type = NLA_U16 },
	[FARMEM_A_POLL] = { .type = NLA_FLAG },
	[FARMEM_A_SYNCHRONOUS] = { .type = NLA_FLAG },
	[FARMEM_A_FRONTEND] = { .type = NLA_NUL_STRING, .len = FARMEM_NAME_SIZE - 1 },
	[FARMEM_A_AREA] = { .type = NLA_NUL_STRING, .len = FARMEM_PATH_SIZE - 1 },
};

static int put_counters(struct sk_buff *message, struct farmem_device *device)
{
	struct nlattr *nest = nla_nest_start(message, FARMEM_A_COUNTERS);
	int counter;

	if (!nest)
		return -EMSGSIZE;
	for (counter = FARMEM_C_PAD + 1; counter <= FARMEM_C_MAX; counter++)
		if (nla_put_u64_64bit(message, counter, farmem_count(device, counter),
				      FARMEM_C_PAD))
			return -EMSGSIZE;
	nla_nest_end(message, nest);
	return 0;
}

static int put_latency(struct sk_buff *message, struct farmem_device *device)
{
	u64 buckets[FARMEM_LATENCY_BUCKETS];

	farmem_latency(device, FARMEM_READ, buckets);
	if (nla_put(message, FARMEM_A_READ_LATENCY, sizeof(buckets), buckets))
		return -EMSGSIZE;
	farmem_latency(device, FARMEM_WRITE, buckets);
	return nla_put(message, FARMEM_A_WRITE_LATENCY, sizeof(buckets), buckets);
}

static int put_frontend(struct sk_buff *message, struct farmem_device *device)
{
	if (device->area)
		return nla_put_string(message, FARMEM_A_FRONTEND, "frontswap") ?:
			nla_put_string(message, FARMEM_A_AREA, farmem_area_path(device)) ?:
			nla_put_u32(message, FARMEM_A_OPENERS, farmem_area_used(device));
	return nla_put_string(message, FARMEM_A_FRONTEND, "block") ?:
		nla_put_string(message, FARMEM_A_DISK, device->disk->disk_name) ?:
		nla_put_u32(message, FARMEM_A_OPENERS, disk_openers(device->disk));
}

static int put_status(struct sk_buff *message, struct farmem_device *device,
		      u32 portid, u32 sequence, int flags)
{
	void *header = genlmsg_put(message, portid, sequence, &family, flags,
				   FARMEM_CMD_STATUS);

	if (!header)
		return -EMSGSIZE;
	if (nla_put_string(message, FARMEM_A_NAME, device->name) ||
	    nla_put_string(message, FARMEM_A_BACKEND, device->backend->name) ||
	    nla_put_u64_64bit(message, FARMEM_A_SIZE, device->size << PAGE_SHIFT,
			      FARMEM_A_PAD) ||
	    nla_put_u64_64bit(message, FARMEM_A_CAPACITY,
			      device->capacity << PAGE_SHIFT, FARMEM_A_PAD) ||
	    nla_put_u64_64bit(message, FARMEM_A_USED,
			      device->backend->used(device) << PAGE_SHIFT,
			      FARMEM_A_PAD) ||
	    put_frontend(message, device) ||
	    (device->reserve && nla_put_flag(message, FARMEM_A_RESERVE)) ||
	    put_counters(message, device) || put_latency(message, device) ||
	    (device->backend->put_status &&
	     device->backend->put_status(device, message))) {
		genlmsg_cancel(message, header);
		return -EMSGSIZE;
	}
	genlmsg_end(message, header);
	return 0;
}

static int reply_status(struct farmem_device *device, struct genl_info *info,
			struct sk_buff *message)
{
	int error = put_status(message, device, info->snd_portid, info->snd_seq, 0);

	if (!error)
		return genlmsg_reply(message, info);
	nlmsg_free(message);
	return error;
}

static bool valid_name(const char *name)
{
	const char *c;

	for (c = name; *c; c++)
		if (!isalnum(*c) && !strchr("._-", *c))
			return false;
	return c != name;
}

/* The attribute in pages; 0 when it is no whole number of them, or too many. */
static u64 pages_of(struct nlattr *attribute)
{
	u64 bytes = nla_get_u64(attribute);

	return bytes % PAGE_SIZE || bytes >> PAGE_SHIFT > PAGES_MAX ?
		0 : bytes >> PAGE_SHIFT;
}

static u32 number(struct nlattr *attribute, u32 otherwise)
{
	return attribute ? nla_get_u32(attribute) : otherwise;
}

/* What only some backends look at. */
static void fill_options(struct farmem_options *options, struct genl_info *info)
{
	struct nlattr **attributes = info->attrs;

	options->net = genl_info_net(info);
	options->port = 50000;
	if (attributes[FARMEM_A_ADDRESS])
		options->address = nla_data(attributes[FARMEM_A_ADDRESS]);
	if (attributes[FARMEM_A_PORT])
		options->port = nla_get_u16(attributes[FARMEM_A_PORT]);
	options->lease = attributes[FARMEM_A_LEASE] ?
		nla_data(attributes[FARMEM_A_LEASE]) : options->name;
	if (attributes[FARMEM_A_KEY_NAME])
		options->key_name = nla_data(attributes[FARMEM_A_KEY_NAME]);
	if (attributes[FARMEM_A_KEY_SECRET]) {
		options->secret = nla_data(attributes[FARMEM_A_KEY_SECRET]);
		options->secret_size = nla_len(attributes[FARMEM_A_KEY_SECRET]);
	}
	options->attach_ms = number(attributes[FARMEM_A_ATTACH_DEADLINE], 5000);
	options->read_ms = number(attributes[FARMEM_A_READ_DEADLINE], 30000);
	options->write_ms = number(attributes[FARMEM_A_WRITE_DEADLINE], 5000);
	if (attributes[FARMEM_A_QUEUES])
		options->queues = nla_get_u16(attributes[FARMEM_A_QUEUES]);
	options->poll = nla_get_flag(attributes[FARMEM_A_POLL]);
	options->synchronous = nla_get_flag(attributes[FARMEM_A_SYNCHRONOUS]);
}

/* Whether there is such a frontend, and what it needs. */
static bool frontend_options(struct farmem_options *options, struct genl_info *info)
{
	struct nlattr *name = info->attrs[FARMEM_A_FRONTEND];
	struct nlattr *area = info->attrs[FARMEM_A_AREA];

	if (!name || !strcmp(nla_data(name), "block"))
		return !area;
	if (strcmp(nla_data(name), "frontswap") || !area || !nla_len(area))
		return false;
	options->area = nla_data(area);
	return true;
}

static int farmem_do_attach(struct sk_buff *request, struct genl_info *info)
{
	struct nlattr **attributes = info->attrs;
	struct farmem_options options = { };
	struct farmem_device *device;
	struct sk_buff *message;
	u64 size, capacity;
	int error;

	if (!netlink_capable(request, CAP_SYS_ADMIN))
		return -EPERM;
	if (!attributes[FARMEM_A_NAME] || !attributes[FARMEM_A_BACKEND] ||
	    !attributes[FARMEM_A_SIZE]) {
		NL_SET_ERR_MSG(info->extack,
			       "farmem: attach needs a name, a backend and a size");
		return -EINVAL;
	}
	if (!valid_name(nla_data(attributes[FARMEM_A_NAME]))) {
		NL_SET_ERR_MSG(info->extack,
			       "farmem: a name has letters, digits, '.', '_' and '-'");
		return -EINVAL;
	}
	size = pages_of(attributes[FARMEM_A_SIZE]);
	capacity = attributes[FARMEM_A_CAPACITY] ?
		pages_of(attributes[FARMEM_A_CAPACITY]) : size;
	if (!size || !capacity || capacity > size) {
		NL_SET_ERR_MSG(info->extack,
			       "farmem: sizes are whole pages up to 16 TiB, the capacity at most the size");
		return -EINVAL;
	}
	if (!frontend_options(&options, info)) {
		NL_SET_ERR_MSG(info->extack,
			       "farmem: the frontend is block, or frontswap with a swap area");
		return -EINVAL;
	}
	/* Before the device: an answer that fails would leave one that nobody knows of. */
	message = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!message)
		return -ENOMEM;
	options.name = nla_data(attributes[FARMEM_A_NAME]);
	options.backend = nla_data(attributes[FARMEM_A_BACKEND]);
	options.size = size;
	options.capacity = capacity;
	options.reserve = nla_get_flag(attributes[FARMEM_A_RESERVE]);
	fill_options(&options, info);
	mutex_lock(&farmem_mutex);
	device = farmem_attach(&options);
	if (IS_ERR(device)) {
		error = PTR_ERR(device);
		nlmsg_free(message);
		if (error == -ENOENT)
			NL_SET_ERR_MSG(info->extack,
				       "farmem: no such backend; there are dram and rdma");
		if (options.problem && info->extack)
			info->extack->_msg = options.problem;
	} else {
		error = reply_status(device, info, message);
	}
	mutex_unlock(&farmem_mutex);
	return error;
}

static int farmem_do_detach(struct sk_buff *request, struct genl_info *info)
{
	struct farmem_device *device;
	int error = -ENODEV;

	if (!netlink_capable(request, CAP_SYS_ADMIN))
		return -EPERM;
	if (!info->attrs[FARMEM_A_NAME])
		return -EINVAL;
	mutex_lock(&farmem_mutex);
	device = farmem_find(nla_data(info->attrs[FARMEM_A_NAME]));
	if (device)
		error = farmem_detach(device);
	mutex_unlock(&farmem_mutex);
	if (error == -EBUSY)
		NL_SET_ERR_MSG(info->extack,
			       "farmem: the device is open: swapoff or close it first");
	return error;
}

static int farmem_do_status(struct sk_buff *request, struct genl_info *info)
{
	struct farmem_device *device;
	struct sk_buff *message;
	int error = -ENODEV;

	if (!netlink_capable(request, CAP_SYS_ADMIN))
		return -EPERM;
	if (!info->attrs[FARMEM_A_NAME])
		return -EINVAL;
	message = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!message)
		return -ENOMEM;
	mutex_lock(&farmem_list_mutex);
	device = farmem_find(nla_data(info->attrs[FARMEM_A_NAME]));
	if (device)
		error = reply_status(device, info, message);
	else
		nlmsg_free(message);
	mutex_unlock(&farmem_list_mutex);
	return error;
}

static int farmem_dump_status(struct sk_buff *message, struct netlink_callback *cb)
{
	struct farmem_device *device;
	long position = 0;

	if (!netlink_capable(cb->skb, CAP_SYS_ADMIN))
		return -EPERM;
	mutex_lock(&farmem_list_mutex);
	list_for_each_entry(device, &farmem_devices, link) {
		if (position++ < cb->args[0])
			continue;
		if (put_status(message, device, NETLINK_CB(cb->skb).portid,
			       cb->nlh->nlmsg_seq, NLM_F_MULTI))
			break;
		cb->args[0] = position;
	}
	mutex_unlock(&farmem_list_mutex);
	return message->len;
}

static const struct genl_small_ops operations[] = {
	{ .cmd = FARMEM_CMD_ATTACH, .doit = farmem_do_attach },
	{ .cmd = FARMEM_CMD_DETACH, .doit = farmem_do_detach },
	{ .cmd = FARMEM_CMD_STATUS, .doit = farmem_do_status,
	  .dumpit = farmem_dump_status },
};

static struct genl_family family = {
	.name = FARMEM_GENL_NAME,
	.version = FARMEM_GENL_VERSION,
	.maxattr = FARMEM_A_MAX,
	.policy = policy,
	.small_ops = operations,
	.n_small_ops = ARRAY_SIZE(operations),
	.resv_start_op = FARMEM_CMD_MAX + 1,
	.parallel_ops = true,
	.module = THIS_MODULE,
};

int farmem_netlink_init(void)
{
	return genl_register_family(&family);
}

void farmem_netlink_exit(void)
{
	genl_unregister_family(&family);
}
