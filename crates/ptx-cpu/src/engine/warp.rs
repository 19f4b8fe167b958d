//! Operations that the threads of a warp resolve together: shuffles, votes, matches, reductions.
//!
//! A thread parks with an operation and a member mask. A group resolves when every live lane of its mask has parked at the same
//! operation with the same mask, wherever in the program; exited lanes leave the mask. `activemask` waits until nothing else in the
//! warp can move, which gives the most convergent answer, and then groups lanes by resume point.

use crate::abi::{Park, Thread, op};

/// Lanes of a warp.
pub(crate) const WARP_LEN: usize = 32;

/// Whether an operation is resolved here.
pub(crate) fn is_warp_op(op: u32) -> bool {
    matches!(op, op::WARP_SYNC | op::SHFL_UP..=op::SHFL_IDX | op::VOTE_ALL..=op::ELECT | op::REDUX_ADD..=op::REDUX_XOR)
}

/// Resolves what can be resolved among the `parked` lanes (all at warp operations) and returns the lanes that may go on.
/// `threads` are those of the warp; `live` the lanes that have not exited.
pub(crate) fn resolve(threads: &mut [Thread], live: u32, parked: u32) -> u32 {
    let mut released = 0;
    let mut active_mask = 0;
    let mut rest = parked;
    while rest != 0 {
        let leader = rest.trailing_zeros() as usize;
        let Park { op, mask, .. } = threads[leader].park;
        let mut group = 0;
        for lane in lanes(rest) {
            let park = &threads[lane].park;
            group |= u32::from(park.op == op && (park.mask == mask || op == op::ACTIVE_MASK)) << lane;
        }
        rest &= !group;
        if op == op::ACTIVE_MASK {
            active_mask |= group;
        } else if mask & live & !group == 0 && mask >> leader & 1 != 0 {
            perform(threads, op, mask & live, group);
            released |= group;
        }
    }
    if released != 0 {
        return released;
    }
    while active_mask != 0 {
        let resume = threads[active_mask.trailing_zeros() as usize].resume;
        let mut group = 0;
        for lane in lanes(active_mask) {
            group |= u32::from(threads[lane].resume == resume) << lane;
        }
        for lane in lanes(group) {
            threads[lane].park.result = u64::from(group);
        }
        active_mask &= !group;
        released |= group;
    }
    if released == 0 && parked == live {
        released = resolve_without_own_bit(threads, parked);
    }
    released
}

/// Lanes whose mask lacks themselves, where nothing in the warp can move any more. The manual leaves it undefined; a GPU performs the
/// operation for the lanes that have come together and then looks at the mask, and programs count on that (a ballot over "all lanes
/// before me"). Such lanes of one resume point are a group here.
fn resolve_without_own_bit(threads: &mut [Thread], parked: u32) -> u32 {
    let outside = |threads: &[Thread], lane: usize| threads[lane].park.mask >> lane & 1 == 0;
    let Some(leader) = lanes(parked).find(|&lane| outside(threads, lane)) else { return 0 };
    let (op, resume) = (threads[leader].park.op, threads[leader].resume);
    let group = lanes(parked)
        .filter(|&lane| threads[lane].park.op == op && threads[lane].resume == resume)
        .fold(0, |group, lane| group | 1 << lane);
    perform(threads, op, group, group);
    if op == op::VOTE_BALLOT {
        for lane in lanes(group) {
            let park = &mut threads[lane].park;
            park.result &= u64::from(park.mask);
        }
    }
    group
}

/// The numbers of the set bits, lowest first.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros();
            rest &= rest - 1;
            lane as usize
        })
    })
}

fn perform(threads: &mut [Thread], op: u32, members: u32, group: u32) {
    match op {
        op::WARP_SYNC => {}
        op::SHFL_UP..=op::SHFL_IDX => shuffle(threads, op, group),
        op::VOTE_ALL..=op::VOTE_BALLOT => vote(threads, op, group),
        op::MATCH_ANY => match_any(threads, group),
        op::MATCH_ALL => {
            let first = threads[group.trailing_zeros() as usize].park.a;
            let equal = lanes(group).all(|lane| threads[lane].park.a == first);
            broadcast(threads, group, if equal { u64::from(group) } else { 0 }, equal);
        }
        op::ELECT => {
            let elected = if members != 0 { members } else { group }.trailing_zeros();
            for lane in lanes(group) {
                threads[lane].park.result = u64::from(elected);
                threads[lane].park.predicate = u64::from(lane == elected as usize);
            }
        }
        _ => reduce(threads, op, group),
    }
}

fn broadcast(threads: &mut [Thread], group: u32, result: u64, predicate: bool) {
    for lane in lanes(group) {
        let park = &mut threads[lane].park;
        (park.result, park.predicate) = (result, u64::from(predicate));
    }
}

/// `shfl.sync`, as the PTX manual's pseudo-code has it. A source outside the group gives zero and a true predicate: undefined by
/// the manual, but what GPUs give, and programs that sum up a partial warp with shuffles over the whole of it count on it.
fn shuffle(threads: &mut [Thread], op: u32, group: u32) {
    let mut values = [0u64; WARP_LEN];
    for lane in lanes(group) {
        values[lane] = threads[lane].park.a;
    }
    for lane in lanes(group) {
        let park = &mut threads[lane].park;
        let lane = lane as i32;
        let operand = (park.b & 31) as i32;
        let clamp = (park.c & 31) as i32;
        let segment = (park.c >> 8 & 31) as i32;
        let max_lane = (lane & segment) | (clamp & !segment);
        let (source, in_range) = match op {
            op::SHFL_UP => (lane - operand, lane - operand >= max_lane),
            op::SHFL_DOWN => (lane + operand, lane + operand <= max_lane),
            op::SHFL_BFLY => (lane ^ operand, lane ^ operand <= max_lane),
            _ => {
                let source = (lane & segment) | (operand & !segment);
                (source, source <= max_lane)
            }
        };
        // Lanes outside the group have the zero that `values` began with.
        let source = if in_range { source } else { lane };
        park.result = values[(source & 31) as usize];
        park.predicate = u64::from(in_range);
    }
}

fn vote(threads: &mut [Thread], op: u32, group: u32) {
    let mut ballot = 0u32;
    for lane in lanes(group) {
        ballot |= u32::from(threads[lane].park.a != 0) << lane;
    }
    let predicate = match op {
        op::VOTE_ALL => ballot == group,
        op::VOTE_ANY => ballot != 0,
        op::VOTE_UNI => ballot == group || ballot == 0,
        _ => false,
    };
    broadcast(threads, group, u64::from(ballot), predicate);
}

fn match_any(threads: &mut [Thread], group: u32) {
    let mut rest = group;
    while rest != 0 {
        let value = threads[rest.trailing_zeros() as usize].park.a;
        let mut equal = 0;
        for lane in lanes(rest) {
            equal |= u32::from(threads[lane].park.a == value) << lane;
        }
        broadcast(threads, equal, u64::from(equal), true);
        rest &= !equal;
    }
}

fn reduce(threads: &mut [Thread], op: u32, group: u32) {
    let combine: fn(u32, u32) -> u32 = match op {
        op::REDUX_MIN_U => u32::min,
        op::REDUX_MAX_U => u32::max,
        op::REDUX_MIN_S => |a, b| (a as i32).min(b as i32) as u32,
        op::REDUX_MAX_S => |a, b| (a as i32).max(b as i32) as u32,
        op::REDUX_AND => |a, b| a & b,
        op::REDUX_OR => |a, b| a | b,
        op::REDUX_XOR => |a, b| a ^ b,
        _ => u32::wrapping_add,
    };
    let result = lanes(group).map(|lane| threads[lane].park.a as u32).reduce(combine).unwrap_or(0);
    broadcast(threads, group, u64::from(result), false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warp(len: usize, park: impl Fn(usize) -> Park) -> Vec<Thread> {
        (0..len)
            .map(|lane| Thread {
                park: park(lane),
                lane: lane as u32,
                linear: lane as u32,
                ..super::super::slot::blank_thread()
            })
            .collect()
    }

    fn results(threads: &[Thread]) -> Vec<u64> {
        threads.iter().map(|thread| thread.park.result).collect()
    }

    #[test]
    fn shuffles_follow_the_manual() {
        // (op, operand, clamp and segment, expected source and predicate of a lane)
        type Expect = fn(usize) -> (usize, bool);
        let cases: [(u32, u64, u64, Expect); 6] = [
            (op::SHFL_UP, 1, 0, |lane| if lane == 0 { (0, false) } else { (lane - 1, true) }),
            (op::SHFL_DOWN, 3, 31, |lane| if lane > 28 { (lane, false) } else { (lane + 3, true) }),
            (op::SHFL_BFLY, 16, 31, |lane| (lane ^ 16, true)),
            (op::SHFL_IDX, 5, 31, |_| (5, true)),
            // width 8: segment mask 0x18
            (op::SHFL_IDX, 5, 0x181f, |lane| (lane & 24 | 5, true)),
            (op::SHFL_DOWN, 4, 0x181f, |lane| if lane & 7 < 4 { (lane + 4, true) } else { (lane, false) }),
        ];
        for (op, b, c, expect) in cases {
            let mut threads =
                warp(32, |lane| Park { op, mask: !0, a: 100 + lane as u64, b, c, ..Park::default() });
            assert_eq!(resolve(&mut threads, !0, !0), !0);
            for (lane, thread) in threads.iter().enumerate() {
                let (source, in_range) = expect(lane);
                assert_eq!(
                    (thread.park.result, thread.park.predicate),
                    (100 + source as u64, u64::from(in_range)),
                    "{op} {lane}"
                );
            }
        }
    }

    #[test]
    fn lanes_outside_the_group_shuffle_as_zero() {
        let parks =
            |op, b| move |lane| Park { op, mask: 0xff, a: 100 + lane as u64, b, c: 31, ..Park::default() };
        for (op, operand) in [(op::SHFL_DOWN, 8), (op::SHFL_IDX, 20), (op::SHFL_BFLY, 16)] {
            let mut threads = warp(32, parks(op, operand));
            assert_eq!(resolve(&mut threads, !0, 0xff), 0xff);
            for thread in &threads[..8] {
                assert_eq!((thread.park.result, thread.park.predicate), (0, 1), "{op}");
            }
        }
    }

    #[test]
    fn two_masks_resolve_apart_and_missing_lanes_are_waited_for() {
        let mut threads = warp(32, |lane| Park {
            op: op::VOTE_BALLOT,
            mask: if lane < 16 { 0xffff } else { 0xffff_0000 },
            a: (lane % 2) as u64,
            ..Park::default()
        });
        // Lane 31 has not arrived.
        assert_eq!(resolve(&mut threads, !0, 0x7fff_ffff), 0xffff);
        assert_eq!(threads[0].park.result, 0xaaaa);
        // Lane 31 exits.
        assert_eq!(resolve(&mut threads, 0x7fff_ffff, 0x7fff_0000), 0x7fff_0000);
        assert_eq!(threads[16].park.result, 0x2aaa_0000);
        // Different operations never mix.
        threads[1].park.op = op::WARP_SYNC;
        assert_eq!(resolve(&mut threads, !0, 0xffff), 0);
    }

    #[test]
    fn masks_without_the_own_lane_do_not_wait_for_ever() {
        let mut threads = warp(32, |lane| Park {
            op: op::VOTE_BALLOT,
            mask: (1 << lane) - 1,
            a: (lane % 3 == 0).into(),
            ..Park::default()
        });
        // Not before all have come.
        assert_eq!(resolve(&mut threads, !0, 0x7fff_ffff), 0);
        assert_eq!(resolve(&mut threads, !0, !0), !0);
        let thirds = (0..32u32).filter(|lane| lane % 3 == 0).fold(0u64, |mask, lane| mask | 1 << lane);
        for (lane, thread) in threads.iter().enumerate() {
            assert_eq!(thread.park.result, thirds & ((1 << lane) - 1), "{lane}");
        }
    }

    #[test]
    fn full_mask_in_a_short_warp() {
        let mut threads =
            warp(5, |lane| Park { op: op::REDUX_ADD, mask: !0, a: lane as u64, ..Park::default() });
        assert_eq!(resolve(&mut threads, 31, 31), 31);
        assert_eq!(results(&threads), [10; 5]);
    }

    #[test]
    fn votes_matches_and_reductions() {
        let run = |op: u32, value: fn(usize) -> u64| {
            let mut threads = warp(32, |lane| Park { op, mask: !0, a: value(lane), ..Park::default() });
            assert_eq!(resolve(&mut threads, !0, !0), !0);
            (threads[3].park.result, threads[3].park.predicate)
        };
        assert_eq!(run(op::VOTE_ALL, |_| 1).1, 1);
        assert_eq!(run(op::VOTE_ALL, |lane| u64::from(lane != 9)).1, 0);
        assert_eq!(run(op::VOTE_ANY, |lane| u64::from(lane == 9)).1, 1);
        assert_eq!(run(op::VOTE_ANY, |_| 0).1, 0);
        assert_eq!(run(op::VOTE_UNI, |_| 0).1, 1);
        assert_eq!(run(op::VOTE_UNI, |lane| (lane & 1) as u64).1, 0);
        assert_eq!(run(op::MATCH_ANY, |lane| (lane % 4) as u64 | 1 << 40).0, 0x8888_8888);
        assert_eq!(run(op::MATCH_ALL, |_| 7), (0xffff_ffff, 1));
        assert_eq!(run(op::MATCH_ALL, |lane| lane as u64 / 31), (0, 0));
        assert_eq!(run(op::ELECT, |_| 0), (0, 0));
        assert_eq!(run(op::REDUX_MIN_U, |lane| 40 - lane as u64).0, 9);
        assert_eq!(run(op::REDUX_MAX_U, |lane| u64::from(-(lane as i32) as u32)).0, 0xffff_ffff);
        assert_eq!(run(op::REDUX_MAX_S, |lane| u64::from(-(lane as i32) as u32)).0, 0);
        assert_eq!(run(op::REDUX_MIN_S, |lane| u64::from(-(lane as i32) as u32)).0, u64::from(-31i32 as u32));
        assert_eq!(run(op::REDUX_AND, |lane| 0xff ^ (1 << (lane % 4))).0, 0xf0);
        assert_eq!(run(op::REDUX_OR, |lane| 1 << (lane % 4)).0, 0xf);
        assert_eq!(run(op::REDUX_XOR, |lane| lane as u64).0, 0);
    }

    #[test]
    fn activemask_waits_for_others_and_groups_by_resume_point() {
        let mut threads = warp(32, |lane| Park {
            op: if lane < 8 { op::WARP_SYNC } else { op::ACTIVE_MASK },
            mask: 0xff,
            ..Park::default()
        });
        for (lane, thread) in threads.iter_mut().enumerate() {
            thread.resume = if lane < 16 { 1 } else { 2 };
        }
        assert_eq!(resolve(&mut threads, !0, !0), 0xff);
        assert_eq!(resolve(&mut threads, !0, !0xff), !0xff);
        assert_eq!((threads[8].park.result, threads[31].park.result), (0xff00, 0xffff_0000));
    }
}
