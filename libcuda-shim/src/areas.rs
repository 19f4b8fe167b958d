//! Pages of the program that pages of the window have replaced ([`crate::reach`]): which they are, and how many registrations need them.
//!
//! Several parts of one block may be registered. So what is replaced are areas, each for as long as a registration reaches into it.

use std::collections::BTreeMap;
use std::ops::Range;

/// Pages one after the other, in the program and in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    pub pages: Range<usize>,
    /// Address of the first one in the window.
    pub place: u64,
    /// Whether the device reaches them at the program's addresses, too.
    pub aliased: bool,
    /// Registrations that reach into it.
    users: usize,
}

impl Area {
    pub fn new(pages: Range<usize>, place: u64, aliased: bool) -> Area {
        Area { pages, place, aliased, users: 0 }
    }
}

/// How the device reaches whole pages that are all in areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Address of the first one in the window, if they are one after the other there.
    pub place: Option<u64>,
    /// Whether the device reaches all of them at the program's addresses.
    pub aliased: bool,
}

/// All areas, by their first pages. They do not overlap.
#[derive(Default)]
pub struct Areas(BTreeMap<usize, Area>);

impl Areas {
    /// Areas that some pages are in, in order.
    fn overlapping(&self, pages: &Range<usize>) -> impl Iterator<Item = &Area> {
        // The last one that begins before them may reach into them.
        let first = self.0.range(..=pages.start).next_back().map_or(pages.start, |(start, _)| *start);
        self.0
            .range(first..pages.end.max(first))
            .map(|(_, area)| area)
            .filter(|area| area.pages.end > pages.start)
    }

    /// Parts of some pages that are in no area.
    pub fn gaps(&self, pages: &Range<usize>) -> Vec<Range<usize>> {
        let (mut gaps, mut at) = (Vec::new(), pages.start);
        for area in self.overlapping(pages) {
            if area.pages.start > at {
                gaps.push(at..area.pages.start);
            }
            at = area.pages.end;
        }
        if at < pages.end {
            gaps.push(at..pages.end);
        }
        gaps
    }

    /// Enters an area that meets none.
    pub fn insert(&mut self, area: Area) {
        self.0.insert(area.pages.start, area);
    }

    /// How pages are covered that have no gaps.
    pub fn covered(&self, pages: &Range<usize>) -> Covered {
        let mut areas = self.overlapping(pages);
        let aliased = self.overlapping(pages).all(|area| area.aliased);
        let place = match (areas.next(), areas.next()) {
            (Some(area), None) => Some(area.place + (pages.start - area.pages.start) as u64),
            _ => None,
        };
        Covered { place, aliased }
    }

    /// A registration needs these pages from now on.
    pub fn enter(&mut self, pages: &Range<usize>) {
        let starts: Vec<usize> = self.overlapping(pages).map(|area| area.pages.start).collect();
        for start in starts {
            if let Some(area) = self.0.get_mut(&start) {
                area.users += 1;
            }
        }
    }

    /// A registration does not need these pages any more. Takes out the areas that none does.
    pub fn leave(&mut self, pages: &Range<usize>) -> Vec<Area> {
        let starts: Vec<usize> = self.overlapping(pages).map(|area| area.pages.start).collect();
        for start in &starts {
            if let Some(area) = self.0.get_mut(start) {
                area.users = area.users.saturating_sub(1);
            }
        }
        self.unused(&starts)
    }

    /// Takes out those of some areas, by their first pages, that no registration needs.
    pub fn unused(&mut self, starts: &[usize]) -> Vec<Area> {
        let is_unused = |start: &&usize| self.0.get(start).is_some_and(|area| area.users == 0);
        let unused: Vec<usize> = starts.iter().filter(is_unused).copied().collect();
        unused.iter().filter_map(|start| self.0.remove(start)).collect()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Area> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;

    fn areas(list: &[(Range<usize>, u64, bool)]) -> Areas {
        let mut areas = Areas::default();
        list.iter()
            .for_each(|(pages, place, aliased)| areas.insert(Area::new(pages.clone(), *place, *aliased)));
        areas
    }

    #[test]
    fn gaps_are_what_no_area_has() {
        let some = areas(&[(10..20, 0, true), (30..40, 0, true)]);
        assert_eq!(areas(&[]).gaps(&(5..9)), [5..9]);
        assert_eq!(some.gaps(&(0..50)), [0..10, 20..30, 40..50]);
        assert_eq!(some.gaps(&(15..35)), [20..30]);
        assert_eq!(some.gaps(&(20..30)), [20..30]);
        assert_eq!(some.gaps(&(40..41)), [40..41]);
        assert!(some.gaps(&(12..20)).is_empty() && some.gaps(&(30..31)).is_empty());
    }

    #[test]
    fn pages_of_one_area_are_one_after_the_other() {
        let some = areas(&[(10..20, 1000, true), (20..30, 5000, false), (30..40, 7000, true)]);
        assert_eq!(some.covered(&(12..20)), Covered { place: Some(1002), aliased: true });
        assert_eq!(some.covered(&(20..30)), Covered { place: Some(5000), aliased: false });
        assert_eq!(some.covered(&(12..21)), Covered { place: None, aliased: false });
        let both = areas(&[(10..20, 1000, true), (20..30, 5000, true)]);
        assert_eq!(both.covered(&(19..21)), Covered { place: None, aliased: true });
    }

    #[test]
    fn an_area_ends_with_the_last_registration_in_it() {
        let mut some = areas(&[(10..20, 0, true), (20..30, 0, true)]);
        some.enter(&(10..15));
        some.enter(&(15..25));
        assert!(some.leave(&(10..15)).is_empty(), "the other reaches into it");
        let ended: Vec<_> = some.leave(&(15..25)).into_iter().map(|area| area.pages).collect();
        assert_eq!(ended, [10..20, 20..30]);
        assert!(some.all().is_empty());
        some.insert(Area::new(1..2, 0, true));
        assert_eq!(some.unused(&[1, 9]).len(), 1);
    }
}
