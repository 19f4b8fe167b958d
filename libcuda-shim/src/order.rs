//! Order between lanes.
//!
//! A posted request is carried out some time after its call has returned. What the same thread asks next goes over the same lane, behind it. But
//! another thread may learn (by joining the first, by a mutex) that the call has returned, and may ask for what depends on it over a lane of its own. The driver
//! promises that order, so before a request is sent, all posted requests of other lanes whose calls have returned must have been taken up by the host.
//!
//! The check costs one load as long as no other thread has posted anything since the last one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use protocol::status::{CuResult, Status};
use transport::{GuestLane, Progress};

/// How far a lane is.
pub struct Mark {
    /// Number of the last posted request whose call has returned.
    posted: AtomicU64,
    progress: Progress,
}

/// All lanes of the session.
#[derive(Default)]
pub struct Order {
    /// Posted requests of all lanes whose calls have returned.
    posts: AtomicU64,
    /// Answered requests, of calls that have returned, that may have queued work.
    asked: AtomicU64,
    marks: RwLock<Vec<Arc<Mark>>>,
}

/// Differs whenever a call has returned since that may have queued work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub posts: u64,
    pub asked: u64,
}

/// A lane's view of the others.
pub struct Place {
    mark: Arc<Mark>,
    /// Value of `posts` up to which the others are known to have been taken up, or were this lane's own.
    seen: u64,
    /// For each lane the posted request up to which this one is known to come after it.
    followed: Vec<u64>,
    /// Nothing on this lane depends on what others have posted.
    alone: bool,
}

impl Place {
    /// From now on this lane waits for no other.
    pub fn stay_alone(&mut self) {
        self.alone = true;
    }
}

/// Looks at another lane's progress between two naps.
const LOOKS: u32 = 2000;
const NAP: Duration = Duration::from_micros(50);

impl Order {
    /// See [`Stamp`].
    #[inline]
    pub fn stamp(&self) -> Stamp {
        Stamp { posts: self.posts.load(Ordering::Acquire), asked: self.asked.load(Ordering::Acquire) }
    }

    /// To be called before a call returns whose answered request may have queued work.
    #[inline]
    pub fn asked(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    /// Enters a new lane.
    pub fn enter(&self, progress: Progress) -> Place {
        let mark = Arc::new(Mark { posted: AtomicU64::new(0), progress });
        self.marks.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&mark));
        Place { mark, seen: 0, followed: Vec::new(), alone: false }
    }

    /// To be called before a request is sent on `place`'s lane, which is `lane`.
    #[inline]
    pub fn follow(&self, place: &mut Place, lane: &mut GuestLane) -> CuResult {
        let now = self.posts.load(Ordering::Acquire);
        if now == place.seen {
            return Ok(());
        }
        self.wait(place, lane)?;
        place.seen = now;
        Ok(())
    }

    #[cold]
    fn wait(&self, place: &mut Place, lane: &mut GuestLane) -> CuResult {
        if place.alone {
            return Ok(());
        }
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        place.followed.resize(marks.len(), 0);
        for (mark, followed) in marks.iter().zip(&mut place.followed) {
            let posted = mark.posted.load(Ordering::Acquire);
            if posted == *followed || Arc::ptr_eq(mark, &place.mark) {
                continue;
            }
            let mut looks = 0;
            while !lane.follow(&mark.progress, posted).map_err(|_| Status::UNKNOWN)? {
                std::hint::spin_loop();
                looks += 1;
                if looks % LOOKS == 0 {
                    // Then waiting has no end.
                    if lane.is_closed() {
                        return Err(Status::UNKNOWN);
                    }
                    std::thread::sleep(NAP);
                }
            }
            *followed = posted;
        }
        Ok(())
    }

    /// To be called when a call returns whose last request, number `seq`, was posted.
    #[inline]
    pub fn posted(&self, place: &mut Place, seq: u64) {
        place.mark.posted.store(seq, Ordering::Release);
        let before = self.posts.fetch_add(1, Ordering::AcqRel);
        if before == place.seen {
            place.seen = before + 1;
        }
    }
}
