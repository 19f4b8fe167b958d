// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/cuda-broker: memory of programs for the daemon on the host.
 *
 * Policy and bookkeeping are in the Rust half (core/); this file gives them a
 * device node.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "broker.h"
#include "../include/uapi/cuda_broker.h"

/* How long the host may take to answer before the caller is given an error. */
#define ANSWER_MS 10000

static unsigned int total_limit_mb;
module_param(total_limit_mb, uint, 0444);
MODULE_PARM_DESC(total_limit_mb, "memory of all users (0: 3/4 of all)");

static unsigned int user_limit_mb;
module_param(user_limit_mb, uint, 0444);
MODULE_PARM_DESC(user_limit_mb, "memory of one user (0: 1/2 of all)");

static unsigned int process_limit_mb;
module_param(process_limit_mb, uint, 0444);
MODULE_PARM_DESC(process_limit_mb, "memory of one process (0: 1/2 of all)");

static unsigned int user_sessions = 256;
module_param(user_sessions, uint, 0444);
MODULE_PARM_DESC(user_sessions, "sessions of one user");

static unsigned int session_regions = 65536;
module_param(session_regions, uint, 0444);
MODULE_PARM_DESC(session_regions, "regions of one session");

struct broker broker = {
	.lock = __MUTEX_INITIALIZER(broker.lock),
	.changed = __WAIT_QUEUE_HEAD_INITIALIZER(broker.changed),
};

static struct broker_limits limits;

/* One opening of the device. */
struct broker_file {
	struct mmu_notifier notifier;	/* tells the end of the program */
	struct mm_struct *mm;
	u64 session;
};

void *broker_alloc(size_t len)
{
	/* Rather fail than wait with the lock held: the core can bear it. */
	return kvmalloc(len, GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
}

void broker_free(void *at)
{
	kvfree(at);
}

u64 broker_now_ms(void)
{
	return ktime_get_ns() / NSEC_PER_MSEC;
}

/* With broker.lock. */
void broker_note_change(void)
{
	WRITE_ONCE(broker.changes, broker.changes + 1);
	wake_up_all(&broker.changed);
}

/*
 * Asks until the answer is not 0, which is returned: 1 or an error. 0 if the
 * host takes too long, -EINTR if the caller is being killed.
 */
static int broker_wait(int (*ask)(struct broker_state *, u64, u64), u64 session,
		       u64 region, unsigned int limit_ms)
{
	long left = msecs_to_jiffies(limit_ms);
	unsigned long seen;
	int answer;

	for (;;) {
		mutex_lock(&broker.lock);
		seen = broker.changes;
		answer = ask(broker.state, session, region);
		mutex_unlock(&broker.lock);
		if (answer || !left)
			return answer;
		left = wait_event_killable_timeout(broker.changed,
						   READ_ONCE(broker.changes) != seen,
						   left);
		if (left < 0)
			return -EINTR;
	}
}

static int ask_ready(struct broker_state *state, u64 session, u64 unused)
{
	return broker_core_ready(state, session);
}

static int wait_ready(struct broker_file *bf)
{
	int answer = broker_wait(ask_ready, bf->session, 0, ANSWER_MS);

	return answer > 0 ? 0 : answer ? answer : -ETIMEDOUT;
}

/* Everything that the program had is to be given back. */
static void session_end(struct broker_file *bf)
{
	mutex_lock(&broker.lock);
	broker_core_close(broker.state, bf->session, broker_now_ms());
	mutex_unlock(&broker.lock);
	broker_link_send();
	broker_reap();
}

/*
 * The program's address space goes: it has ended or calls exec. A forked child
 * may keep the file open for long after that.
 */
static void program_ends(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	session_end(container_of(notifier, struct broker_file, notifier));
}

static const struct mmu_notifier_ops notifier_ops = {
	.release = program_ends,
};

static int broker_open(struct inode *inode, struct file *file)
{
	struct broker_file *bf;
	u64 cookie[2];
	int err;

	if (!current->mm)
		return -EINVAL;
	if (!broker_link_wait())
		return -ENXIO;
	bf = kzalloc(sizeof(*bf), GFP_KERNEL_ACCOUNT);
	if (!bf)
		return -ENOMEM;
	bf->notifier.ops = &notifier_ops;
	bf->mm = current->mm;
	mmgrab(bf->mm);
	get_random_bytes(cookie, sizeof(cookie));
	mutex_lock(&broker.lock);
	err = broker_core_open(broker.state,
			       from_kuid(&init_user_ns, current_uid()),
			       task_tgid_nr(current), (u64)(uintptr_t)bf->mm,
			       cookie[0], cookie[1], &bf->session);
	mutex_unlock(&broker.lock);
	memzero_explicit(cookie, sizeof(cookie));
	if (err)
		goto drop;
	broker_link_send();
	err = mmu_notifier_register(&bf->notifier, bf->mm);
	if (err)
		goto close;
	file->private_data = bf;
	return 0;
close:
	session_end(bf);
drop:
	mmdrop(bf->mm);
	kfree(bf);
	return err;
}

static int broker_release(struct inode *inode, struct file *file)
{
	struct broker_file *bf = file->private_data;

	mmu_notifier_unregister(&bf->notifier, bf->mm);
	session_end(bf);
	mmdrop(bf->mm);
	kfree(bf);
	return 0;
}

static long ioctl_info(struct broker_file *bf, void __user *arg)
{
	struct cuda_broker_info info = { .version = CUDA_BROKER_VERSION };
	int err;

	err = wait_ready(bf);
	if (err)
		return err;
	mutex_lock(&broker.lock);
	if (!broker_core_cookie(broker.state, bf->session, info.cookie))
		err = -EBADF;
	info.max_region_bytes = broker_core_max_region(broker.state);
	mutex_unlock(&broker.lock);
	if (err)
		return err;
	info.process_limit_bytes = limits.process_pages << PAGE_SHIFT;
	info.user_limit_bytes = limits.user_pages << PAGE_SHIFT;
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

/* Gives a region up that its program has not been told of. */
static void region_drop(struct broker_file *bf, u64 region)
{
	mutex_lock(&broker.lock);
	broker_core_remove(broker.state, bf->session, region, broker_now_ms());
	mutex_unlock(&broker.lock);
	broker_link_send();
	broker_reap();
}

/* Makes a region of count pages and waits until the host knows it. */
static int region_make(struct broker_file *bf, u32 kind, unsigned long address,
		       unsigned long count, u64 *region)
{
	struct broker_extents *extents;
	struct broker_pages *pages;
	int err;

	err = wait_ready(bf);
	if (err)
		return err;
	mutex_lock(&broker.lock);
	if (count > broker_core_max_region(broker.state) >> PAGE_SHIFT)
		err = -E2BIG;
	mutex_unlock(&broker.lock);
	if (err)
		return err;
	pages = broker_pages_new(kind, count);
	if (IS_ERR(pages))
		return PTR_ERR(pages);
	mutex_lock(&broker.lock);
	err = broker_core_reserve(broker.state, bf->session, kind,
				  (u64)count << PAGE_SHIFT, region,
				  &pages->charge);
	mutex_unlock(&broker.lock);
	if (err)
		goto put;
	pages->charged = true;

	err = broker_pages_fill(pages, address, count);
	if (err)
		goto abandon;
	extents = broker_extents_new();
	if (!extents) {
		err = -ENOMEM;
		goto abandon;
	}
	err = broker_pages_extents(pages, extents);
	if (err) {
		broker_extents_free(extents);
		goto abandon;
	}
	mutex_lock(&broker.lock);
	err = broker_core_publish(broker.state, *region, pages, extents);
	mutex_unlock(&broker.lock);
	if (err)
		goto abandon;

	/* From here on the pages are the region's. */
	broker_link_send();
	err = broker_wait(broker_core_added, bf->session, *region, ANSWER_MS);
	if (err > 0)
		return 0;
	region_drop(bf, *region);
	return err ? err : -ETIMEDOUT;

abandon:
	mutex_lock(&broker.lock);
	broker_core_abandon(broker.state, *region);
	mutex_unlock(&broker.lock);
put:
	broker_pages_put(pages);
	return err;
}

static long ioctl_window(struct broker_file *bf, void __user *arg)
{
	struct cuda_broker_window window;
	int err;

	if (copy_from_user(&window, arg, sizeof(window)))
		return -EFAULT;
	if (window.flags || !window.len || !PAGE_ALIGNED(window.len))
		return -EINVAL;
	err = region_make(bf, BROKER_KIND_WINDOW, 0, window.len >> PAGE_SHIFT,
			  &window.region);
	if (err)
		return err;
	/* broker_core_window_at() knows the region by these bits of its id. */
	window.mmap_offset = (window.region & (BIT_ULL(40) - 1)) << PAGE_SHIFT;
	if (copy_to_user(arg, &window, sizeof(window))) {
		region_drop(bf, window.region);
		return -EFAULT;
	}
	return 0;
}

static long ioctl_pin(struct broker_file *bf, void __user *arg)
{
	struct cuda_broker_pin pin;
	u64 range[3];
	int err;

	if (copy_from_user(&pin, arg, sizeof(pin)))
		return -EFAULT;
	if (pin.flags)
		return -EINVAL;
	err = broker_core_enclosing(pin.address, pin.len, U64_MAX, range);
	if (err)
		return err;
	err = region_make(bf, BROKER_KIND_PINNED, range[0], range[1],
			  &pin.region);
	if (err)
		return err;
	pin.offset = range[2];
	pin.region_len = range[1] << PAGE_SHIFT;
	if (copy_to_user(arg, &pin, sizeof(pin))) {
		region_drop(bf, pin.region);
		return -EFAULT;
	}
	return 0;
}

static long ioctl_release(struct broker_file *bf, void __user *arg)
{
	struct cuda_broker_release release;
	int err;

	if (copy_from_user(&release, arg, sizeof(release)))
		return -EFAULT;
	if (release.flags & ~(u64)CUDA_BROKER_WAIT)
		return -EINVAL;
	mutex_lock(&broker.lock);
	err = broker_core_remove(broker.state, bf->session, release.region,
				 broker_now_ms());
	mutex_unlock(&broker.lock);
	if (err)
		return err;
	broker_link_send();
	if (release.flags & CUDA_BROKER_WAIT) {
		err = broker_wait(broker_core_released, bf->session,
				  release.region, broker_link_release_ms());
		err = err > 0 ? 0 : err ? err : -ETIMEDOUT;
	}
	broker_reap();
	return err;
}

static long ioctl_status(struct broker_file *bf, void __user *arg)
{
	struct cuda_broker_status status;
	struct broker_region_info info = { };
	struct broker_usage usage;
	int err;

	if (copy_from_user(&status, arg, sizeof(status)))
		return -EFAULT;
	mutex_lock(&broker.lock);
	err = broker_core_usage(broker.state, bf->session, &usage);
	if (!err && status.region)
		err = broker_core_region_info(broker.state, bf->session,
					      status.region, &info);
	mutex_unlock(&broker.lock);
	if (err)
		return err;
	status = (struct cuda_broker_status) {
		.region = status.region,
		.region_len = info.len,
		.state = info.state,
		.extents = info.extents,
		.regions = usage.regions,
		.live_bytes = usage.live_bytes,
		.waiting_bytes = usage.waiting_bytes,
		.user_bytes = usage.user_bytes,
		.process_bytes = usage.process_bytes,
	};
	return copy_to_user(arg, &status, sizeof(status)) ? -EFAULT : 0;
}

static long broker_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct broker_file *bf = file->private_data;
	void __user *at = (void __user *)arg;

	/* Not for a child, and not for whom the file was passed to. */
	if (current->mm != bf->mm)
		return -EPERM;
	switch (cmd) {
	case CUDA_BROKER_INFO:
		return ioctl_info(bf, at);
	case CUDA_BROKER_ALLOC_WINDOW:
		return ioctl_window(bf, at);
	case CUDA_BROKER_PIN:
		return ioctl_pin(bf, at);
	case CUDA_BROKER_RELEASE:
		return ioctl_release(bf, at);
	case CUDA_BROKER_STATUS:
		return ioctl_status(bf, at);
	default:
		return -ENOTTY;
	}
}

static int broker_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct broker_file *bf = file->private_data;
	struct broker_pages *pages;
	int err;

	if (current->mm != bf->mm)
		return -EPERM;
	mutex_lock(&broker.lock);
	pages = broker_core_window_at(broker.state, bf->session, vma->vm_pgoff);
	if (pages)
		broker_pages_get(pages);
	mutex_unlock(&broker.lock);
	if (!pages)
		return -EINVAL;
	err = broker_pages_map(pages, vma);
	if (err)
		broker_pages_put(pages);
	return err;
}

static const struct file_operations broker_fops = {
	.owner = THIS_MODULE,
	.open = broker_open,
	.release = broker_release,
	.unlocked_ioctl = broker_ioctl,
	.mmap = broker_mmap,
};

static struct miscdevice broker_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "cuda-broker",
	.fops = &broker_fops,
	.mode = 0666,
};

static u64 limit_pages(unsigned int mb, u64 fallback)
{
	return mb ? (u64)mb << (20 - PAGE_SHIFT) : fallback;
}

static int __init broker_init(void)
{
	u64 all = totalram_pages();
	u64 instance[2];
	int err;

	limits.total_pages = limit_pages(total_limit_mb, all / 4 * 3);
	limits.user_pages = limit_pages(user_limit_mb, all / 2);
	limits.process_pages = limit_pages(process_limit_mb, all / 2);
	limits.region_pages = limits.process_pages;
	limits.user_sessions = user_sessions;
	limits.session_regions = session_regions;
	get_random_bytes(instance, sizeof(instance));
	broker.state = broker_core_new(&limits, instance[0], instance[1]);
	if (!broker.state)
		return -ENOMEM;
	err = broker_link_start();
	if (err)
		goto free;
	err = misc_register(&broker_device);
	if (err)
		goto stop;
	return 0;
stop:
	broker_link_stop();
free:
	broker_core_free(broker.state);
	return err;
}

static void __exit broker_exit(void)
{
	misc_deregister(&broker_device);
	broker_link_stop();
	broker_core_free(broker.state);
}

module_init(broker_init);
module_exit(broker_exit);

MODULE_DESCRIPTION("Memory broker for CUDA programs in virtual machines");
MODULE_LICENSE("GPL");
MODULE_SOFTDEP("pre: vmw_vsock_virtio_transport");
