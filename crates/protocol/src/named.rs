//! Handles that the program gives to what it asks for, so that a call which makes something need not be waited for.
//!
//! The worker's own handles are a generation and the number of a slot; these have the second-highest bit set, and the highest not (so that they are positive to
//! programs that keep handles in signed integers). A program counts upwards and uses none twice. The worker takes any of them that is not in use.

/// The bit.
const NAMED: u64 = 1 << 62;

/// The most generations of a slot for the worker's own handles to be recognised by that bit.
pub const GENERATIONS: u32 = 1 << 30;

/// Whether a handle is one that a program may give.
pub const fn is_named(handle: u64) -> bool {
    handle >> 62 == 1
}

/// The handle with a number; none when there are no more.
pub const fn nth(number: u64) -> Option<u64> {
    if number < NAMED { Some(NAMED | number) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_and_the_program_never_give_the_same_handle() {
        assert!(
            [0, 1, 7 << 32, u64::from(GENERATIONS - 1) << 32 | 0xffff_ffff].iter().all(|own| !is_named(*own))
        );
        assert!([0, 1, NAMED - 1].iter().all(|number| nth(*number).is_some_and(is_named)));
        assert_eq!(nth(NAMED), None);
        assert!(!is_named(u64::MAX) && (nth(5).unwrap() as i64) > 0);
    }
}
