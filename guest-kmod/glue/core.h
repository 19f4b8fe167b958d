/* SPDX-License-Identifier: GPL-2.0 */
/* The Rust half (core/src/ffi.rs). All but the last six want broker_lock held. */
#ifndef CUDA_BROKER_CORE_H
#define CUDA_BROKER_CORE_H

#include <linux/types.h>

struct broker_state;
struct broker_extents;

#define BROKER_KIND_WINDOW 1
#define BROKER_KIND_PINNED 2
#define BROKER_HEADER_LEN 16
#define BROKER_MAX_HOST_BODY 40
#define BROKER_MAX_MESSAGE 16064

struct broker_limits {
	u64 total_pages;
	u64 user_pages;
	u64 process_pages;
	u64 region_pages;
	u32 user_sessions;
	u32 session_regions;
};

struct broker_charge {
	u32 user;
	u32 process;
	u64 pages;
};

struct broker_usage {
	u64 regions;
	u64 live_bytes;
	u64 waiting_bytes;
	u64 user_bytes;
	u64 process_bytes;
};

struct broker_region_info {
	u64 len;
	u32 state;
	u32 extents;
};

struct broker_overdue {
	u64 regions;
	u64 bytes;
	u64 waiting;
};

struct broker_state *broker_core_new(const struct broker_limits *limits,
				     u64 instance_0, u64 instance_1);
void broker_core_free(struct broker_state *state);

int broker_core_open(struct broker_state *state, u32 uid, u32 pid, u64 process,
		     u64 cookie_0, u64 cookie_1, u64 *session);
void broker_core_close(struct broker_state *state, u64 session, u64 now_ms);
int broker_core_ready(struct broker_state *state, u64 session);
int broker_core_cookie(struct broker_state *state, u64 session, u64 cookie[2]);

int broker_core_reserve(struct broker_state *state, u64 session, u64 kind,
			u64 len, u64 *region, struct broker_charge *charge);
int broker_core_publish(struct broker_state *state, u64 region, void *pages,
			struct broker_extents *extents);
void broker_core_abandon(struct broker_state *state, u64 region);
int broker_core_added(struct broker_state *state, u64 session, u64 region);
int broker_core_remove(struct broker_state *state, u64 session, u64 region,
		       u64 now_ms);
int broker_core_released(struct broker_state *state, u64 session, u64 region);
void *broker_core_window_at(struct broker_state *state, u64 session,
			    u64 page_offset);
int broker_core_usage(struct broker_state *state, u64 session,
		      struct broker_usage *usage);
int broker_core_region_info(struct broker_state *state, u64 session, u64 region,
			    struct broker_region_info *info);
void *broker_core_take_dead(struct broker_state *state);
void broker_core_uncharge(struct broker_state *state,
			  const struct broker_charge *charge);
void broker_core_overdue(struct broker_state *state, u64 now_ms, u64 limit_ms,
			 struct broker_overdue *overdue);
u64 broker_core_max_region(struct broker_state *state);

void broker_core_connected(struct broker_state *state);
void broker_core_disconnected(struct broker_state *state, u64 now_ms);
int broker_core_is_up(struct broker_state *state);
int broker_core_has_message(struct broker_state *state);
size_t broker_core_next_message(struct broker_state *state, u8 *out,
				size_t len);
int broker_core_receive(struct broker_state *state, u32 kind, const u8 *body,
			size_t len);

int broker_core_header(const u8 *header, u32 *kind);
int broker_core_enclosing(u64 address, u64 len, u64 limit_bytes, u64 out[3]);
struct broker_extents *broker_extents_new(void);
int broker_extents_push(struct broker_extents *extents, u64 gpa, u64 len);
void broker_extents_free(struct broker_extents *extents);

/* What the Rust half calls. */
void *broker_alloc(size_t len);
void broker_free(void *at);

#endif
