/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User interface of the memory broker, /dev/cuda-broker.
 *
 * A program opens the device, shows the cookie of its session to the daemon on
 * the host, and from then on names memory to the daemon as (region, offset).
 * The Rust side has the same structures in crates/guest-device; a test compares
 * the two.
 */
#ifndef _UAPI_CUDA_BROKER_H
#define _UAPI_CUDA_BROKER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define CUDA_BROKER_VERSION 1

/* Set in .flags of CUDA_BROKER_RELEASE: return when the host has confirmed. */
#define CUDA_BROKER_WAIT 1

/* .state of struct cuda_broker_status */
#define CUDA_BROKER_ADDING 0	/* the host has not answered yet */
#define CUDA_BROKER_LIVE 1	/* usable */
#define CUDA_BROKER_REMOVING 2	/* given up; the host has not confirmed yet */

struct cuda_broker_info {
	__u32 version;			/* CUDA_BROKER_VERSION */
	__u32 reserved;			/* 0 */
	__u64 cookie[2];		/* secret of this session */
	__u64 max_region_bytes;		/* longest region */
	__u64 process_limit_bytes;	/* of this process, all sessions */
	__u64 user_limit_bytes;		/* of this user, all processes */
};

struct cuda_broker_window {
	__u64 len;			/* in: bytes, a multiple of the page size */
	__u64 flags;			/* in: 0 */
	__u64 region;			/* out: id */
	__u64 mmap_offset;		/* out: for mmap() of the device */
};

struct cuda_broker_pin {
	__u64 address;			/* in: of memory that may be written */
	__u64 len;			/* in: bytes */
	__u64 flags;			/* in: 0 */
	__u64 region;			/* out: id */
	__u64 offset;			/* out: of address in the region */
	__u64 region_len;		/* out: bytes, whole pages */
};

struct cuda_broker_release {
	__u64 region;			/* in: id */
	__u64 flags;			/* in: 0 or CUDA_BROKER_WAIT */
};

struct cuda_broker_status {
	__u64 region;			/* in: id, or 0 for the session alone */
	__u64 region_len;		/* out: bytes of the region */
	__u32 state;			/* out: of the region */
	__u32 extents;			/* out: pieces that the host was told of */
	__u64 regions;			/* out: regions of the session */
	__u64 live_bytes;		/* out: bytes of those */
	__u64 waiting_bytes;		/* out: given up, not confirmed */
	__u64 user_bytes;		/* out: charged to the user */
	__u64 process_bytes;		/* out: charged to the process */
};

#define CUDA_BROKER_MAGIC 0xcb
#define CUDA_BROKER_INFO	_IOR(CUDA_BROKER_MAGIC, 0, struct cuda_broker_info)
#define CUDA_BROKER_ALLOC_WINDOW _IOWR(CUDA_BROKER_MAGIC, 1, struct cuda_broker_window)
#define CUDA_BROKER_PIN		_IOWR(CUDA_BROKER_MAGIC, 2, struct cuda_broker_pin)
#define CUDA_BROKER_RELEASE	_IOW(CUDA_BROKER_MAGIC, 3, struct cuda_broker_release)
#define CUDA_BROKER_STATUS	_IOWR(CUDA_BROKER_MAGIC, 4, struct cuda_broker_status)

#endif
