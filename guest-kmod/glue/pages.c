// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of regions: pinned ones of a program, and windows.
 *
 * A window's pages are ordinary pages, mapped one by one: each mapping holds
 * its own references, so neither the end of the region nor munmap can free a
 * page that the other side still has.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "broker.h"

/* Pages that are pinned between two looks at pending signals. */
#define PIN_CHUNK 512
/* Largest physically contiguous piece that is asked for: 2 MiB. */
#define WINDOW_ORDER 9

static bool enforce_memlock;
module_param(enforce_memlock, bool, 0644);
MODULE_PARM_DESC(enforce_memlock, "count regions against RLIMIT_MEMLOCK");

struct broker_pages *broker_pages_new(u32 kind, unsigned long count)
{
	struct broker_pages *pages;
	unsigned long locked;

	pages = kzalloc(sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages)
		return ERR_PTR(-ENOMEM);
	kref_init(&pages->ref);
	pages->kind = kind;
	/* A region keeps the module loaded, with or without its program. */
	__module_get(THIS_MODULE);
	pages->mm = current->mm;
	mmgrab(pages->mm);
	locked = atomic64_add_return(count, &pages->mm->pinned_vm);
	pages->pinned_vm = count;
	if (enforce_memlock && locked > rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT &&
	    !capable(CAP_IPC_LOCK)) {
		broker_pages_put(pages);
		return ERR_PTR(-ENOMEM);
	}
	return pages;
}

static int fill_pinned(struct broker_pages *pages, unsigned long address,
		       unsigned long count)
{
	while (pages->count < count) {
		unsigned long at = address + (pages->count << PAGE_SHIFT);
		int want = min_t(unsigned long, count - pages->count, PIN_CHUNK);
		int got;

		got = pin_user_pages_fast(at, want, FOLL_WRITE | FOLL_LONGTERM,
					  pages->pages + pages->count);
		if (got <= 0)
			return got ? got : -EFAULT;
		pages->count += got;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static int fill_window(struct broker_pages *pages, unsigned long count)
{
	unsigned int order = WINDOW_ORDER;

	while (pages->count < count) {
		gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN;
		struct page *page;
		unsigned long i;

		order = min_t(unsigned int, order, ilog2(count - pages->count));
		gfp |= order ? __GFP_NORETRY : __GFP_RETRY_MAYFAIL;
		page = alloc_pages(gfp, order);
		if (!page) {
			if (!order)
				return -ENOMEM;
			order--;
			continue;
		}
		if (order)
			split_page(page, order);
		for (i = 0; i < 1UL << order; i++)
			pages->pages[pages->count++] = page + i;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

int broker_pages_fill(struct broker_pages *pages, unsigned long address,
		      unsigned long count)
{
	pages->pages = kvmalloc_array(count, sizeof(*pages->pages),
				      GFP_KERNEL_ACCOUNT);
	if (!pages->pages)
		return -ENOMEM;
	if (pages->kind == BROKER_KIND_PINNED)
		return fill_pinned(pages, address, count);
	return fill_window(pages, count);
}

int broker_pages_extents(struct broker_pages *pages,
			 struct broker_extents *extents)
{
	unsigned long i;
	int err;

	for (i = 0; i < pages->count; i++) {
		err = broker_extents_push(extents, page_to_phys(pages->pages[i]),
					  PAGE_SIZE);
		if (err)
			return err;
	}
	return 0;
}

static void pages_free(struct kref *ref)
{
	struct broker_pages *pages = container_of(ref, struct broker_pages, ref);
	unsigned long i;

	if (!pages->count) {
		/* Nothing was pinned or allocated, maybe not even the array. */
	} else if (pages->kind == BROKER_KIND_PINNED) {
		unpin_user_pages_dirty_lock(pages->pages, pages->count, true);
	} else {
		for (i = 0; i < pages->count; i++) {
			__free_page(pages->pages[i]);
			if (!(i % PIN_CHUNK))
				cond_resched();
		}
	}
	atomic64_sub(pages->pinned_vm, &pages->mm->pinned_vm);
	mmdrop(pages->mm);
	if (pages->charged) {
		mutex_lock(&broker.lock);
		broker_core_uncharge(broker.state, &pages->charge);
		mutex_unlock(&broker.lock);
	}
	kvfree(pages->pages);
	kfree(pages);
	module_put(THIS_MODULE);
}

void broker_pages_get(struct broker_pages *pages)
{
	kref_get(&pages->ref);
}

/* Without broker.lock. */
void broker_pages_put(struct broker_pages *pages)
{
	kref_put(&pages->ref, pages_free);
}

/* Frees what nobody uses any more. Without broker.lock. */
void broker_reap(void)
{
	struct broker_pages *pages;

	do {
		mutex_lock(&broker.lock);
		pages = broker_core_take_dead(broker.state);
		mutex_unlock(&broker.lock);
		if (pages)
			broker_pages_put(pages);
	} while (pages);
}

static void window_open(struct vm_area_struct *vma)
{
	broker_pages_get(vma->vm_private_data);
}

static void window_close(struct vm_area_struct *vma)
{
	broker_pages_put(vma->vm_private_data);
}

static const struct vm_operations_struct window_ops = {
	.open = window_open,
	.close = window_close,
};

/* Takes over the caller's reference if it succeeds. */
int broker_pages_map(struct broker_pages *pages, struct vm_area_struct *vma)
{
	unsigned long count = vma_pages(vma);
	int err;

	if (!(vma->vm_flags & VM_SHARED) || count > pages->count)
		return -EINVAL;
	/* A child gets no mapping, and none of them grows or is executed. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP,
		     VM_MAYEXEC);
#else
	vma->vm_flags |= VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP;
	vma->vm_flags &= ~VM_MAYEXEC;
#endif
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;
	err = vm_insert_pages(vma, vma->vm_start, pages->pages, &count);
	if (err)
		return err;
	vma->vm_private_data = pages;
	vma->vm_ops = &window_ops;
	return 0;
}
