// SPDX-License-Identifier: GPL-2.0
/*
 * The connection to the daemon: one per guest, from a privileged vsock port.
 *
 * One thread connects and receives, one sends. The receiving thread owns the
 * socket; the sending one uses it under send_lock, which is what the other
 * waits for before it lets the socket go.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <linux/vm_sockets.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "broker.h"

static unsigned int cid = VMADDR_CID_HOST;
module_param(cid, uint, 0444);
MODULE_PARM_DESC(cid, "context id of the host (default 2)");

static unsigned int port = 7102;
module_param(port, uint, 0444);
MODULE_PARM_DESC(port, "vsock port of the daemon (default 7102)");

static unsigned int release_timeout_ms = 30000;
module_param(release_timeout_ms, uint, 0644);
MODULE_PARM_DESC(release_timeout_ms,
		 "report memory that the host has not released for this long");

/* The last ports that an unprivileged program cannot bind. */
#define FIRST_SOURCE_PORT 512
#define LAST_SOURCE_PORT 1023

/* Programs that open the device cannot make it try more often than this. */
#define RETRY_PAUSE_MS 50
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000
#define TICK_MS 1000
/* How long an opening program waits for a connection that is being made. */
#define OPEN_WAIT_MS 1000

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#define SOCKADDR(addr) ((struct sockaddr_unsized *)(addr))
#else
#define SOCKADDR(addr) ((struct sockaddr *)(addr))
#endif

static struct task_struct *receiver;
static struct task_struct *sender;
static DEFINE_MUTEX(send_lock);
static DECLARE_WAIT_QUEUE_HEAD(send_wait);
static DECLARE_WAIT_QUEUE_HEAD(retry_wait);
static struct socket *link_socket;	/* under broker.lock */
static unsigned long attempts;		/* finished ones, under broker.lock */
static bool retry_now;
static u8 *send_buffer;

unsigned int broker_link_release_ms(void)
{
	return READ_ONCE(release_timeout_ms);
}

/* Something may have to be sent. */
void broker_link_send(void)
{
	wake_up(&send_wait);
}

static bool link_is_up(unsigned long *attempt)
{
	bool up;

	mutex_lock(&broker.lock);
	up = broker_core_is_up(broker.state);
	*attempt = attempts;
	mutex_unlock(&broker.lock);
	return up;
}

/* Whether there is a connection; waits for the attempt that this begins. */
bool broker_link_wait(void)
{
	unsigned long left = msecs_to_jiffies(OPEN_WAIT_MS);
	unsigned long first, attempt, seen;
	bool up;

	seen = READ_ONCE(broker.changes);
	up = link_is_up(&first);
	if (up)
		return true;
	WRITE_ONCE(retry_now, true);
	wake_up(&retry_wait);
	for (;;) {
		long ret;

		ret = wait_event_killable_timeout(broker.changed,
						  READ_ONCE(broker.changes) != seen,
						  left);
		seen = READ_ONCE(broker.changes);
		up = link_is_up(&attempt);
		/* The first may have been under way already: see two out. */
		if (up || ret <= 0 || attempt - first >= 2)
			return up;
		left = ret;
		WRITE_ONCE(retry_now, true);
		wake_up(&retry_wait);
	}
}

static int link_connect(struct socket **result)
{
	struct sockaddr_vm addr = { .svm_family = AF_VSOCK };
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, AF_VSOCK, SOCK_STREAM, 0, &sock);
	if (err)
		return err;
	addr.svm_cid = VMADDR_CID_ANY;
	addr.svm_port = LAST_SOURCE_PORT;
	do {
		err = kernel_bind(sock, SOCKADDR(&addr), sizeof(addr));
	} while (err == -EADDRINUSE && --addr.svm_port >= FIRST_SOURCE_PORT);
	if (err)
		goto release;
	addr.svm_cid = cid;
	addr.svm_port = port;
	err = kernel_connect(sock, SOCKADDR(&addr), sizeof(addr), 0);
	if (err)
		goto release;
	sock->sk->sk_rcvtimeo = msecs_to_jiffies(TICK_MS);
	*result = sock;
	return 0;
release:
	sock_release(sock);
	return err;
}

/* Says once per region that the host takes long. */
static void link_tick(void)
{
	struct broker_overdue overdue;

	mutex_lock(&broker.lock);
	broker_core_overdue(broker.state, broker_now_ms(),
			    broker_link_release_ms(), &overdue);
	mutex_unlock(&broker.lock);
	if (overdue.regions)
		pr_warn("the host has not released %llu regions (%llu KiB) for %u s; they are kept (%llu waiting in all)\n",
			overdue.regions, overdue.bytes >> 10,
			broker_link_release_ms() / 1000, overdue.waiting);
}

static int link_read(struct socket *sock, u8 *to, size_t len)
{
	while (len) {
		struct kvec vec = { .iov_base = to, .iov_len = len };
		struct msghdr msg = { .msg_flags = 0 };
		int got;

		if (kthread_should_stop())
			return -ESHUTDOWN;
		got = kernel_recvmsg(sock, &msg, &vec, 1, len, 0);
		if (got == -EAGAIN || got == -EINTR) {
			link_tick();
			continue;
		}
		if (got <= 0)
			return got ? got : -ECONNRESET;
		to += got;
		len -= got;
	}
	return 0;
}

static int link_receive(struct socket *sock)
{
	u8 header[BROKER_HEADER_LEN];
	u8 body[BROKER_MAX_HOST_BODY];
	bool was_up, is_up;
	int len, err;
	u32 kind;

	err = link_read(sock, header, sizeof(header));
	if (err)
		return err;
	len = broker_core_header(header, &kind);
	if (len < 0)
		return len;
	if (len > sizeof(body))
		return -EPROTO;
	err = link_read(sock, body, len);
	if (err)
		return err;

	mutex_lock(&broker.lock);
	was_up = broker_core_is_up(broker.state);
	err = broker_core_receive(broker.state, kind, body, len);
	is_up = broker_core_is_up(broker.state);
	broker_note_change();
	mutex_unlock(&broker.lock);
	if (is_up && !was_up) {
		pr_info("connected to the host\n");
		broker_link_send();
	}
	broker_reap();
	return err;
}

/* One connection from its first to its last byte. */
static bool link_serve(struct socket *sock)
{
	bool was_up;
	int err;

	mutex_lock(&broker.lock);
	broker_core_connected(broker.state);
	link_socket = sock;
	mutex_unlock(&broker.lock);
	broker_link_send();

	do {
		err = link_receive(sock);
	} while (!err);

	mutex_lock(&broker.lock);
	was_up = broker_core_is_up(broker.state);
	link_socket = NULL;
	broker_core_disconnected(broker.state, broker_now_ms());
	broker_note_change();
	mutex_unlock(&broker.lock);
	/* The sender may be in the middle of a message. */
	kernel_sock_shutdown(sock, SHUT_RDWR);
	mutex_lock(&send_lock);
	mutex_unlock(&send_lock);
	broker_reap();
	if (err == -ECONNREFUSED)
		pr_warn("the host does not accept this guest\n");
	else if (err == -EPROTO)
		pr_warn("the host has broken the protocol\n");
	else if (was_up)
		pr_info("the connection to the host is lost (%d)\n", err);
	return was_up;
}

static int receiver_main(void *unused)
{
	unsigned int delay = RETRY_MIN_MS;

	while (!kthread_should_stop()) {
		struct socket *sock;

		WRITE_ONCE(retry_now, false);
		if (!link_connect(&sock)) {
			if (link_serve(sock))
				delay = RETRY_MIN_MS;
			sock_release(sock);
		}
		mutex_lock(&broker.lock);
		attempts++;
		broker_note_change();
		mutex_unlock(&broker.lock);
		link_tick();
		wait_event_interruptible_timeout(retry_wait,
						 kthread_should_stop(),
						 msecs_to_jiffies(RETRY_PAUSE_MS));
		wait_event_interruptible_timeout(retry_wait,
						 kthread_should_stop() ||
						 READ_ONCE(retry_now),
						 msecs_to_jiffies(delay));
		delay = min_t(unsigned int, delay * 2, RETRY_MAX_MS);
	}
	return 0;
}

static void send_all(struct socket *sock, u8 *from, size_t len)
{
	while (len) {
		struct kvec vec = { .iov_base = from, .iov_len = len };
		struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };
		int sent = kernel_sendmsg(sock, &msg, &vec, 1, len);

		if (sent <= 0) {
			/* The receiver sees the end and cleans up. */
			kernel_sock_shutdown(sock, SHUT_RDWR);
			return;
		}
		from += sent;
		len -= sent;
	}
}

static bool send_one(void)
{
	struct socket *sock;
	size_t len = 0;

	mutex_lock(&send_lock);
	mutex_lock(&broker.lock);
	sock = link_socket;
	if (sock)
		len = broker_core_next_message(broker.state, send_buffer,
					       BROKER_MAX_MESSAGE);
	mutex_unlock(&broker.lock);
	if (len)
		send_all(sock, send_buffer, len);
	mutex_unlock(&send_lock);
	return len;
}

static bool have_message(void)
{
	bool have;

	mutex_lock(&broker.lock);
	have = link_socket && broker_core_has_message(broker.state);
	mutex_unlock(&broker.lock);
	return have;
}

static int sender_main(void *unused)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);

	add_wait_queue(&send_wait, &wait);
	while (!kthread_should_stop()) {
		if (have_message())
			send_one();
		else
			wait_woken(&wait, TASK_INTERRUPTIBLE,
				   MAX_SCHEDULE_TIMEOUT);
	}
	remove_wait_queue(&send_wait, &wait);
	return 0;
}

int broker_link_start(void)
{
	send_buffer = kzalloc(BROKER_MAX_MESSAGE, GFP_KERNEL);
	if (!send_buffer)
		return -ENOMEM;
	sender = kthread_run(sender_main, NULL, "cuda_broker_tx");
	if (IS_ERR(sender)) {
		kfree(send_buffer);
		return PTR_ERR(sender);
	}
	receiver = kthread_run(receiver_main, NULL, "cuda_broker_rx");
	if (IS_ERR(receiver)) {
		kthread_stop(sender);
		kfree(send_buffer);
		return PTR_ERR(receiver);
	}
	return 0;
}

void broker_link_stop(void)
{
	mutex_lock(&broker.lock);
	if (link_socket)
		kernel_sock_shutdown(link_socket, SHUT_RDWR);
	mutex_unlock(&broker.lock);
	kthread_stop(receiver);
	kthread_stop(sender);
	kfree(send_buffer);
}
