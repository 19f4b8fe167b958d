//! One connection's state: credit in both directions, what each side has closed, what is to be said to the guest.
//!
//! No sockets and no memory here: the owner tells what happened and asks what to do. Counters of bytes are modulo 2^32, as on the wire.

use super::header::shutdown;

/// What the guest must not do. It ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("bytes after the end of them was announced")]
    AfterEnd,
    #[error("more bytes than there is room for")]
    Credit,
}

/// What to do with bytes of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// They go to the host's end.
    Forward,
    /// The host's end takes nothing any more.
    Discard,
}

/// A message to the guest without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Response,
    /// With its flags.
    Shutdown(u32),
    CreditUpdate,
    CreditRequest,
}

/// What to tell the guest when both directions are over and the connection is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The guest has closed its socket and waits for this.
    Reset,
    /// The host's end has closed; the guest may still read what it has got.
    Shutdown,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    /// Bytes of the guest that we promise to hold.
    window: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// How many of them the host's end has taken.
    forwarded: u32,
    /// `forwarded`, as the guest has last heard.
    told: u32,
    guest_sends: bool,
    host_receives: bool,

    /// The guest's own window, how much has left it, and what we have sent.
    peer_window: u32,
    peer_forwarded: u32,
    sent: u32,
    guest_receives: bool,
    host_sends: bool,

    respond: bool,
    update: bool,
    /// The guest has been asked for credit since there was none.
    asked: Asked,
    /// Flags of the shutdown that the guest has heard.
    shutdown_told: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Wanted,
    Yes,
}

impl Connection {
    /// The guest has asked for a connection, with the credit that its request says, and gets one.
    pub fn accepted(window: u32, peer_window: u32, peer_forwarded: u32) -> Self {
        Self {
            window,
            received: 0,
            forwarded: 0,
            told: 0,
            guest_sends: true,
            host_receives: true,
            peer_window,
            peer_forwarded,
            sent: 0,
            guest_receives: true,
            host_sends: true,
            respond: true,
            update: false,
            asked: Asked::No,
            shutdown_told: 0,
        }
    }

    /// Bytes of the guest that we promise to hold.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Bytes of the guest that the host's end has not taken yet. Never more than the window.
    pub fn pending(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// `len` bytes came from the guest.
    ///
    /// # Errors
    /// It may not send them.
    pub fn data(&mut self, len: u32) -> Result<Accepted, Violation> {
        if !self.guest_sends {
            return Err(Violation::AfterEnd);
        }
        if len > self.window - self.pending() {
            return Err(Violation::Credit);
        }
        self.received = self.received.wrapping_add(len);
        if self.host_receives {
            return Ok(Accepted::Forward);
        }
        self.forwarded(len);
        Ok(Accepted::Discard)
    }

    /// The host's end has taken `len` bytes of those that are pending.
    pub fn forwarded(&mut self, len: u32) {
        debug_assert!(len <= self.pending());
        self.forwarded = self.forwarded.wrapping_add(len);
        // Often enough that a guest which is faster than its wake-ups never stands still, and seldom compared with the data.
        if self.forwarded.wrapping_sub(self.told) >= self.window / 4 {
            self.update = true;
        }
    }

    /// Credit that came with a packet of the guest. It may be nonsense: at worst we send nothing, or more than the guest's socket takes.
    pub fn credit_told(&mut self, peer_window: u32, peer_forwarded: u32) {
        (self.peer_window, self.peer_forwarded) = (peer_window, peer_forwarded);
        if self.credit() > 0 {
            self.asked = Asked::No;
        }
    }

    /// The guest wants to know its credit.
    pub fn credit_asked(&mut self) {
        self.update = true;
    }

    /// The guest will not do what `flags` say any more.
    pub fn guest_shutdown(&mut self, flags: u32) {
        self.guest_sends &= flags & shutdown::SEND == 0;
        self.guest_receives &= flags & shutdown::RECEIVE == 0;
    }

    /// No more bytes come from the host's end. To be called after the last of them has been sent.
    pub fn host_ended(&mut self) {
        self.host_sends = false;
    }

    /// The host's end takes no more bytes; those that are pending are lost.
    pub fn host_stopped(&mut self) {
        self.host_receives = false;
        let pending = self.pending();
        self.forwarded(pending);
    }

    /// Whether the host's end is to be told that no more bytes come.
    pub fn input_is_over(&self) -> bool {
        !self.guest_sends && self.pending() == 0
    }

    /// Whether bytes of the host's end may go to the guest at all.
    pub fn output_is_open(&self) -> bool {
        self.host_sends && self.guest_receives
    }

    /// Whether the guest still takes bytes.
    pub fn guest_receives(&self) -> bool {
        self.guest_receives
    }

    /// How many bytes the guest has room for.
    pub fn credit(&self) -> u32 {
        // Numbers that cannot be make the difference huge: no credit then.
        self.peer_window.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// There may be bytes for the guest, and it has no room: asks it once.
    pub fn want_credit(&mut self) {
        if self.asked == Asked::No {
            self.asked = Asked::Wanted;
        }
    }

    /// `len` bytes go to the guest.
    pub fn sent(&mut self, len: u32) {
        debug_assert!(len <= self.credit());
        self.sent = self.sent.wrapping_add(len);
    }

    /// Window and counter for the header of the packet that is made now.
    pub fn stamp(&mut self) -> (u32, u32) {
        (self.told, self.update) = (self.forwarded, false);
        (self.window, self.forwarded)
    }

    /// Whether [`Self::control`] has something.
    pub fn has_control(&self) -> bool {
        self.respond || self.update || self.asked == Asked::Wanted || self.shutdown_news()
    }

    /// The next message without data; before any data.
    pub fn control(&mut self) -> Option<Control> {
        if std::mem::take(&mut self.respond) {
            return Some(Control::Response);
        }
        if self.shutdown_news() {
            self.shutdown_told = self.shutdown_flags();
            return Some(Control::Shutdown(self.shutdown_told));
        }
        if std::mem::take(&mut self.update) {
            return Some(Control::CreditUpdate);
        }
        if self.asked == Asked::Wanted {
            self.asked = Asked::Yes;
            return Some(Control::CreditRequest);
        }
        None
    }

    /// What the host's end will not do any more.
    fn shutdown_flags(&self) -> u32 {
        (if self.host_sends { 0 } else { shutdown::SEND })
            | (if self.host_receives { 0 } else { shutdown::RECEIVE })
    }

    /// Whether the host's end has closed a direction that the guest still uses and has not heard of.
    fn shutdown_news(&self) -> bool {
        let used = (if self.guest_receives { shutdown::SEND } else { 0 })
            | (if self.guest_sends { shutdown::RECEIVE } else { 0 });
        self.shutdown_flags() & !self.shutdown_told & used != 0
    }

    /// Both directions are over: what the guest hears last. A response that is still owed comes first.
    pub fn farewell(&self) -> Option<Farewell> {
        let input_over = self.input_is_over() || !self.host_receives;
        if !input_over || self.output_is_open() || self.respond {
            return None;
        }
        Some(if self.guest_sends || self.guest_receives { Farewell::Shutdown } else { Farewell::Reset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u32 = 1000;

    fn open() -> Connection {
        let mut connection = Connection::accepted(WINDOW, 500, 0);
        assert_eq!(connection.control(), Some(Control::Response));
        assert_eq!(connection.control(), None);
        connection
    }

    #[test]
    fn the_guest_may_fill_the_window_and_no_more() {
        let mut connection = open();
        assert_eq!(connection.data(WINDOW), Ok(Accepted::Forward));
        assert_eq!(connection.data(1), Err(Violation::Credit));
        connection.forwarded(10);
        assert_eq!(connection.data(11), Err(Violation::Credit));
        assert_eq!(connection.data(10), Ok(Accepted::Forward));
        assert_eq!(connection.pending(), WINDOW);
    }

    #[test]
    fn the_guest_hears_of_room_when_a_quarter_of_the_window_is_free_again() {
        let mut connection = open();
        connection.data(WINDOW).expect("room");
        connection.forwarded(WINDOW / 4 - 1);
        assert_eq!(connection.control(), None);
        connection.forwarded(1);
        assert_eq!(connection.control(), Some(Control::CreditUpdate));
        assert_eq!(connection.stamp(), (WINDOW, WINDOW / 4));
        assert_eq!(connection.control(), None);
        // Any packet tells it.
        connection.forwarded(WINDOW / 2);
        assert_eq!(connection.stamp(), (WINDOW, WINDOW / 4 * 3));
        assert!(!connection.has_control());
        connection.credit_asked();
        assert_eq!(connection.control(), Some(Control::CreditUpdate));
    }

    #[test]
    fn credit_follows_the_guest_and_nonsense_is_none() {
        let mut connection = open();
        assert_eq!(connection.credit(), 500);
        connection.sent(500);
        assert_eq!(connection.credit(), 0);
        connection.want_credit();
        connection.want_credit();
        assert_eq!(connection.control(), Some(Control::CreditRequest));
        connection.want_credit();
        assert_eq!(connection.control(), None);
        // An answer that has none does not make us ask again.
        connection.credit_told(500, 0);
        connection.want_credit();
        assert_eq!(connection.control(), None);
        connection.credit_told(500, 100);
        assert_eq!(connection.credit(), 100);
        // More taken than was sent; a window that was made smaller.
        connection.credit_told(500, 501);
        assert_eq!(connection.credit(), 0);
        connection.credit_told(10, 400);
        assert_eq!(connection.credit(), 0);
        connection.credit_told(u32::MAX, 500);
        assert_eq!(connection.credit(), u32::MAX);
    }

    #[test]
    fn counters_wrap() {
        let mut connection = Connection::accepted(u32::MAX, u32::MAX, 0);
        assert_eq!(connection.control(), Some(Control::Response));
        for _ in 0..5 {
            let len = 0x7FFF_FFFF;
            connection.data(len).expect("room");
            connection.forwarded(len);
            connection.sent(len);
            connection.credit_told(u32::MAX, connection.sent);
            assert_eq!((connection.pending(), connection.credit()), (0, u32::MAX));
        }
    }

    #[test]
    fn a_guest_that_closes_gets_a_reset_once_its_bytes_are_delivered() {
        let mut connection = open();
        connection.data(10).expect("room");
        connection.guest_shutdown(shutdown::BOTH);
        assert_eq!((connection.input_is_over(), connection.farewell()), (false, None));
        assert_eq!(connection.data(1), Err(Violation::AfterEnd));
        connection.forwarded(10);
        assert!(connection.input_is_over());
        assert_eq!(connection.farewell(), Some(Farewell::Reset));
    }

    #[test]
    fn half_closed_by_the_guest() {
        let mut connection = open();
        connection.guest_shutdown(shutdown::SEND);
        assert!(connection.input_is_over() && connection.output_is_open());
        assert_eq!(connection.farewell(), None);
        connection.sent(7);
        connection.host_ended();
        assert_eq!(connection.farewell(), Some(Farewell::Shutdown));
    }

    #[test]
    fn half_closed_by_the_host() {
        let mut connection = open();
        connection.host_ended();
        assert_eq!(connection.control(), Some(Control::Shutdown(shutdown::SEND)));
        assert_eq!((connection.control(), connection.farewell()), (None, None));
        assert_eq!(connection.data(5), Ok(Accepted::Forward));
        connection.host_stopped();
        assert_eq!(connection.pending(), 0);
        assert_eq!(connection.control(), Some(Control::Shutdown(shutdown::BOTH)));
        assert_eq!(connection.farewell(), Some(Farewell::Shutdown));
    }

    #[test]
    fn bytes_for_a_host_that_stopped_are_dropped_but_counted() {
        let mut connection = open();
        connection.data(600).expect("room");
        connection.host_stopped();
        assert_eq!(connection.control(), Some(Control::Shutdown(shutdown::RECEIVE)));
        assert_eq!(connection.data(WINDOW), Ok(Accepted::Discard));
        assert_eq!(connection.stamp(), (WINDOW, 600 + WINDOW));
        assert_eq!(connection.farewell(), None);
    }

    #[test]
    fn the_response_comes_before_the_farewell() {
        let mut connection = Connection::accepted(WINDOW, 0, 0);
        connection.host_ended();
        connection.host_stopped();
        assert_eq!(connection.farewell(), None);
        assert_eq!(connection.control(), Some(Control::Response));
        assert_eq!(connection.farewell(), Some(Farewell::Shutdown));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Data(u32),
        Forward(u32),
        Credit(u32, u32),
        Ask,
        Shutdown(u32),
        Send(u32),
        HostEnds,
        HostStops,
        Say,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..2 * WINDOW).prop_map(Step::Data),
            4 => (0..WINDOW).prop_map(Step::Forward),
            2 => (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Step::Credit(a, b)),
            1 => Just(Step::Ask),
            1 => (0u32..8).prop_map(Step::Shutdown),
            4 => any::<u32>().prop_map(Step::Send),
            1 => Just(Step::HostEnds),
            1 => Just(Step::HostStops),
            4 => Just(Step::Say),
        ]
    }

    proptest! {
        /// A model with plain numbers: the guest's view of its credit is never above what is really free, and never stuck.
        #[test]
        fn the_guests_view_of_its_credit_is_safe_and_live(steps in proptest::collection::vec(step(), 0..200)) {
            let mut connection = open();
            let (mut received, mut forwarded, mut told) = (0u64, 0u64, 0u64);
            let (mut ended, mut discards) = (false, false);
            for step in steps {
                match step {
                    Step::Data(len) => {
                        let room = u64::from(WINDOW) - (received - forwarded);
                        match connection.data(len) {
                            Ok(accepted) => {
                                prop_assert!(!ended && u64::from(len) <= room);
                                received += u64::from(len);
                                prop_assert_eq!(accepted == Accepted::Discard, discards);
                                if discards { forwarded = received; }
                            }
                            Err(Violation::AfterEnd) => prop_assert!(ended),
                            Err(Violation::Credit) => prop_assert!(u64::from(len) > room),
                        }
                    }
                    Step::Forward(len) => {
                        let len = len.min(connection.pending());
                        connection.forwarded(len);
                        forwarded += u64::from(len);
                    }
                    Step::Credit(window, count) => connection.credit_told(window, count),
                    Step::Ask => connection.credit_asked(),
                    Step::Shutdown(flags) => {
                        connection.guest_shutdown(flags);
                        ended |= flags & shutdown::SEND != 0;
                    }
                    Step::Send(len) => connection.sent(len.min(connection.credit())),
                    Step::HostEnds => connection.host_ended(),
                    Step::HostStops => {
                        connection.host_stopped();
                        (discards, forwarded) = (true, received);
                    }
                    Step::Say => if connection.control().is_some() {
                        let (window, count) = connection.stamp();
                        prop_assert_eq!((window, count), (WINDOW, forwarded as u32));
                        told = forwarded;
                    },
                }
                prop_assert_eq!(u64::from(connection.pending()), received - forwarded);
                // Live: a guest that sees no room either has bytes on the way, or is about to be told.
                if received - told == u64::from(WINDOW) && received == forwarded {
                    prop_assert!(connection.has_control());
                }
                if connection.farewell().is_some() {
                    prop_assert!(discards || (ended && received == forwarded));
                }
            }
        }
    }
}
