// SPDX-License-Identifier: GPL-2.0-only
/*
 * farmem: stands in for the backend rdma where the kernel has no RDMA.
 */
#include <linux/errno.h>

#include "farmem.h"

static int none_attach(struct farmem_device *device, struct farmem_options *options)
{
	options->problem = "farmem: this kernel was built without RDMA";
	return -EOPNOTSUPP;
}

const struct farmem_backend farmem_rdma = {
	.name = "rdma",
	.attach = none_attach,
};
