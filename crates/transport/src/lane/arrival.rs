//! Seeing bytes arrive by looking at where they go.
//!
//! The place is filled with a pattern before the bytes are asked for; when each word is another one, all have arrived. Whoever writes does so in whole words of 4 bytes (a device's
//! writes over PCI Express are of such words), so that a word is never seen half-written. A word that is like the pattern looks as if it had not arrived: the pattern
//! changes from copy to copy, and the caller has another way to learn of the end.

use crate::sync::{AtomicU32, Ordering};

/// A part of a staging area that is filled with a pattern.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    pub(super) offset: u64,
    pub(super) len: u64,
    pattern: u32,
}

impl Armed {
    /// Another pattern for each of many numbers in a row: bytes that are all the same, and rare in data.
    pub(super) fn new(offset: u64, len: u64, number: u64) -> Armed {
        /// Odd bytes from 0x81 to 0xfd.
        const FIRST: u64 = 0x81;
        const PATTERNS: u64 = 63;
        let byte = FIRST + number % PATTERNS * 2;
        Armed { offset, len, pattern: byte as u32 * 0x0101_0101 }
    }

    /// What each byte of the place is to be.
    pub(super) fn byte(self) -> u8 {
        self.pattern.to_ne_bytes()[0]
    }

    pub(super) fn arrival(self, place: &[AtomicU32]) -> Arrival<'_> {
        Arrival { pattern: self.pattern, missing: place }
    }
}

/// A place that is being written.
pub(super) struct Arrival<'a> {
    pattern: u32,
    /// All before it have arrived.
    missing: &'a [AtomicU32],
}

impl Arrival<'_> {
    /// Whether every word has been written. What was written is visible then.
    #[inline]
    pub(super) fn is_complete(&mut self) -> bool {
        /// Words that are looked at before the first answer: a cache line.
        const LINE: usize = 16;
        while !self.missing.is_empty() {
            let (line, rest) = self.missing.split_at(self.missing.len().min(LINE));
            // Without a branch for each word: most lines arrive as a whole.
            let there =
                line.iter().fold(true, |there, word| there & (word.load(Ordering::Relaxed) != self.pattern));
            if !there {
                return false;
            }
            self.missing = rest;
        }
        crate::sync::fence(Ordering::Acquire);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Armed {
        fn fill(self, place: &[AtomicU32]) {
            place.iter().for_each(|word| word.store(u32::from_ne_bytes([self.byte(); 4]), Ordering::Relaxed));
        }
    }

    fn place(words: usize) -> Vec<AtomicU32> {
        (0..words).map(|_| AtomicU32::new(0)).collect()
    }

    #[test]
    fn each_word_counts() {
        for len in [0, 1, 15, 16, 17, 1024] {
            for missing in 0..len {
                let (armed, place) = (Armed::new(0, 0, missing as u64), place(len));
                armed.fill(&place);
                let mut arrival = armed.arrival(&place);
                for (index, word) in place.iter().enumerate().filter(|(index, _)| *index != missing) {
                    word.store(index as u32, Ordering::Relaxed);
                }
                assert!(!arrival.is_complete(), "word {missing} of {len}");
                place[missing].store(7, Ordering::Relaxed);
                assert!(arrival.is_complete(), "word {missing} of {len}");
            }
        }
        assert!(Armed::new(0, 0, 0).arrival(&[]).is_complete());
    }

    #[test]
    fn one_pattern_in_the_data_does_not_hold_up_the_next_copy() {
        let patterns: std::collections::BTreeSet<u32> =
            (0..63).map(|number| Armed::new(0, 0, number).pattern).collect();
        assert_eq!(patterns.len(), 63);
        assert!(!patterns.contains(&0) && !patterns.contains(&u32::MAX));
    }

    #[test]
    fn what_another_thread_writes_arrives_whole() {
        let place = place(1 << 12);
        for round in 1..200 {
            let armed = Armed::new(0, 0, round);
            armed.fill(&place);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for word in place.iter().rev() {
                        word.store(round as u32, Ordering::Relaxed);
                    }
                });
                let mut arrival = armed.arrival(&place);
                while !arrival.is_complete() {
                    std::hint::spin_loop();
                }
                assert!(place.iter().all(|word| word.load(Ordering::Relaxed) == round as u32));
            });
        }
    }
}
