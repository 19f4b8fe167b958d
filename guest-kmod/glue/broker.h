/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of the C half. */
#ifndef CUDA_BROKER_H
#define CUDA_BROKER_H

#include <linux/kref.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/version.h>
#include <linux/wait.h>

#include "core.h"

/*
 * Lock order: mmap_lock, then broker.lock. So user memory is never touched
 * with broker.lock held.
 */
struct broker {
	struct mutex lock;		/* the Rust half's state */
	struct broker_state *state;
	wait_queue_head_t changed;	/* the host has answered something */
	unsigned long changes;		/* counts those, under lock */
};

extern struct broker broker;

/* Pages of one region. */
struct broker_pages {
	struct kref ref;		/* the region, and each mapping */
	u32 kind;
	bool charged;
	unsigned long count;
	unsigned long pinned_vm;	/* what mm was charged */
	struct page **pages;
	struct mm_struct *mm;
	struct broker_charge charge;
};

/* main.c */
u64 broker_now_ms(void);
void broker_note_change(void);

/* pages.c */
struct broker_pages *broker_pages_new(u32 kind, unsigned long count);
int broker_pages_fill(struct broker_pages *pages, unsigned long address,
		      unsigned long count);
int broker_pages_extents(struct broker_pages *pages,
			 struct broker_extents *extents);
void broker_pages_get(struct broker_pages *pages);
void broker_pages_put(struct broker_pages *pages);
int broker_pages_map(struct broker_pages *pages, struct vm_area_struct *vma);
void broker_reap(void);

/* link.c */
int broker_link_start(void);
void broker_link_stop(void);
void broker_link_send(void);
bool broker_link_wait(void);
unsigned int broker_link_release_ms(void);

#endif
