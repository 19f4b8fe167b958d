//! What a session did: counted in the worker with atomics, reported once at its end, added up and printed by the runner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use transport::Traffic;

/// Opcodes at or above this are counted together in the last slot; the table of driver calls stays far below it.
const OPCODES: usize = 0x2000;

/// At most this many distinct kernels are told apart, per session and in a sum of sessions.
const MAX_KERNELS: usize = 3072;

/// Stands for a kernel's name, which can be of any length.
pub type KernelId = u64;

fn kernel_id(name: &str) -> KernelId {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[derive(Default)]
struct OpCounter {
    calls: AtomicU64,
    bytes: AtomicU64,
    nanos: AtomicU64,
}

/// Live counters of a worker. Relaxed: they are sums, read when the session is over.
pub struct Counters {
    ops: Box<[OpCounter]>,
    /// Kernel launches.
    pub launches: AtomicU64,
    /// Images that the program had to send.
    pub images_sent: AtomicU64,
    /// Images that were asked for and already here.
    pub images_cached: AtomicU64,
    pub image_bytes: AtomicU64,
    /// Bytes copied from the program's pageable memory.
    pub bytes_in: AtomicU64,
    /// Bytes copied to the program's pageable memory.
    pub bytes_out: AtomicU64,
    /// Bytes copied within the region: device, pinned and managed memory.
    pub bytes_within: AtomicU64,
    pub lanes: AtomicU64,
    kernels: Mutex<BTreeSet<KernelId>>,
    sockets: Mutex<Sockets>,
}

/// Bytes over the lanes' sockets.
#[derive(Default)]
struct Sockets {
    /// Lanes that may still be there.
    lanes: Vec<Arc<Traffic>>,
    /// Of those that are gone.
    received: u64,
    sent: u64,
}

impl Sockets {
    /// Adds up lanes that have ended, whose counters nobody else has.
    fn settle(&mut self) {
        let (mut received, mut sent) = (self.received, self.sent);
        self.lanes.retain(|lane| {
            let alive = Arc::strong_count(lane) > 1;
            if !alive {
                received += lane.received();
                sent += lane.sent();
            }
            alive
        });
        (self.received, self.sent) = (received, sent);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            ops: std::iter::repeat_with(OpCounter::default).take(OPCODES).collect(),
            launches: AtomicU64::new(0),
            images_sent: AtomicU64::new(0),
            images_cached: AtomicU64::new(0),
            image_bytes: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            bytes_within: AtomicU64::new(0),
            lanes: AtomicU64::new(0),
            kernels: Mutex::default(),
            sockets: Mutex::default(),
        }
    }
}

impl Counters {
    /// A new lane, with what goes over its socket.
    pub fn lane(&self, traffic: Arc<Traffic>) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.settle();
        sockets.lanes.push(traffic);
    }

    /// Bytes received and sent.
    fn sockets(&self) -> (u64, u64) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.settle();
        let sum = |of: fn(&Traffic) -> u64| sockets.lanes.iter().map(|lane| of(lane)).sum::<u64>();
        (sockets.received + sum(Traffic::received), sockets.sent + sum(Traffic::sent))
    }

    /// Counts one handled frame: its body and reply bytes and the host's time for it.
    pub fn op(&self, opcode: u16, bytes: u64, nanos: u64) {
        let counter = &self.ops[usize::from(opcode).min(OPCODES - 1)];
        counter.calls.fetch_add(1, Ordering::Relaxed);
        counter.bytes.fetch_add(bytes, Ordering::Relaxed);
        counter.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Notes that a kernel of this name has run; called once per kernel.
    pub fn kernel(&self, name: &str) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if kernels.len() < MAX_KERNELS {
            kernels.insert(kernel_id(name));
        }
    }

    /// The counters as a report. `name_of` gives the driver call of an opcode.
    pub fn report(&self, name_of: impl Fn(u16) -> Option<&'static str>) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = self.ops.iter().enumerate().filter(|(_, op)| get(&op.calls) > 0).map(|(opcode, op)| {
            let opcode = u16::try_from(opcode).unwrap_or(u16::MAX);
            let name = name_of(opcode).map_or_else(|| format!("op {opcode:#06x}"), str::to_owned);
            (name, Call { calls: get(&op.calls), bytes: get(&op.bytes), nanos: get(&op.nanos) })
        });
        let (socket_in, socket_out) = self.sockets();
        Report {
            sessions: 1,
            socket_in,
            socket_out,
            broker: 0,
            launches: get(&self.launches),
            kernels: self.kernels.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            lanes: get(&self.lanes),
            images_sent: get(&self.images_sent),
            images_cached: get(&self.images_cached),
            image_bytes: get(&self.image_bytes),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            bytes_within: get(&self.bytes_within),
            calls: calls.collect(),
        }
    }
}

/// One driver call's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub calls: u64,
    /// Bytes of requests and replies, without frame headers and staged data.
    pub bytes: u64,
    /// The host's time.
    pub nanos: u64,
}

/// Sums over one or more sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub sessions: u64,
    pub launches: u64,
    /// The kernels that ran.
    pub kernels: BTreeSet<KernelId>,
    pub lanes: u64,
    pub images_sent: u64,
    pub images_cached: u64,
    pub image_bytes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub bytes_within: u64,
    /// Bytes that came over the lanes' sockets, after their handshakes.
    pub socket_in: u64,
    /// Bytes that went over the lanes' sockets.
    pub socket_out: u64,
    /// Bytes to and from memory brokers of machines.
    pub broker: u64,
    pub calls: BTreeMap<String, Call>,
}

impl Report {
    /// Adds another report to this one. Its numbers come from a process that an untrusted program has used.
    pub fn add(&mut self, other: Report) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.launches = self.launches.saturating_add(other.launches);
        // Bounded: a daemon adds up the sessions of all programs that it ever serves.
        let room = MAX_KERNELS.saturating_sub(self.kernels.len());
        let new: Vec<KernelId> = other.kernels.difference(&self.kernels).take(room).copied().collect();
        self.kernels.extend(new);
        self.lanes = self.lanes.saturating_add(other.lanes);
        self.images_sent = self.images_sent.saturating_add(other.images_sent);
        self.images_cached = self.images_cached.saturating_add(other.images_cached);
        self.image_bytes = self.image_bytes.saturating_add(other.image_bytes);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.bytes_within = self.bytes_within.saturating_add(other.bytes_within);
        self.socket_in = self.socket_in.saturating_add(other.socket_in);
        self.socket_out = self.socket_out.saturating_add(other.socket_out);
        self.broker = self.broker.saturating_add(other.broker);
        for (name, call) in other.calls {
            if self.calls.len() >= OPCODES && !self.calls.contains_key(&name) {
                continue;
            }
            let sum = self.calls.entry(name).or_default();
            sum.calls = sum.calls.saturating_add(call.calls);
            sum.bytes = sum.bytes.saturating_add(call.bytes);
            sum.nanos = sum.nanos.saturating_add(call.nanos);
        }
    }

    /// `cpu backend ran 1 kernel (3 launches) in 1 session`
    pub fn summary(&self, backend: &str) -> String {
        let plural =
            |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        format!(
            "{backend} backend ran {} ({}) in {}",
            plural(self.kernels.len() as u64, "kernel", "kernels"),
            plural(self.launches, "launch", "launches"),
            plural(self.sessions, "session", "sessions"),
        )
    }

    /// The report as text: a table with one row per driver call, most time first, and the sums below it.
    pub fn table(&self) -> String {
        use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["driver call", "calls", "bytes", "total ms", "mean us"]);
        let mut rows: Vec<_> = self.calls.iter().collect();
        rows.sort_by_key(|(_, call)| std::cmp::Reverse(call.nanos));
        for (name, call) in rows {
            table.add_row([
                name.clone(),
                call.calls.to_string(),
                call.bytes.to_string(),
                format!("{:.3}", call.nanos as f64 / 1e6),
                format!("{:.2}", call.nanos as f64 / 1e3 / call.calls.max(1) as f64),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "{table}\nimages: {} sent ({} bytes), {} already here\ncopies: {} bytes in, {} bytes out, {} bytes within\n\
             over sockets: {} bytes in, {} bytes out, {} bytes with memory brokers\n",
            self.images_sent,
            self.image_bytes,
            self.images_cached,
            self.bytes_in,
            self.bytes_out,
            self.bytes_within,
            self.socket_in,
            self.socket_out,
            self.broker
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up() {
        let counters = Counters::default();
        counters.op(3, 10, 100);
        counters.op(3, 20, 300);
        counters.op(u16::MAX, 1, 1);
        counters.kernel("add");
        counters.launches.fetch_add(2, Ordering::Relaxed);
        let one = counters.report(|op| (op == 3).then_some("cuMemAlloc_v2"));
        assert_eq!(one.calls["cuMemAlloc_v2"], Call { calls: 2, bytes: 30, nanos: 400 });
        let mut sum = one.clone();
        sum.add(one);
        assert_eq!(sum.calls["cuMemAlloc_v2"].calls, 4);
        // The same kernel in two sessions is one kernel.
        assert_eq!(sum.summary("cpu"), "cpu backend ran 1 kernel (4 launches) in 2 sessions");
        assert!(sum.table().contains("cuMemAlloc_v2"));
    }

    #[test]
    fn summary_counts_are_worded_right() {
        let report = Report { sessions: 1, launches: 1, kernels: [7].into(), ..Report::default() };
        assert_eq!(report.summary("cpu"), "cpu backend ran 1 kernel (1 launch) in 1 session");
        assert_eq!(Report::default().summary("cpu"), "cpu backend ran 0 kernels (0 launches) in 0 sessions");
    }

    #[test]
    fn reports_are_bounded() {
        let counters = Counters::default();
        for op in (0..300).chain([u16::MAX]) {
            counters.op(op, u64::MAX, u64::MAX);
        }
        let mut sum = Report::default();
        for session in 0..2 {
            (0..5000).for_each(|i| counters.kernel(&format!("{session}{i}{}", "x".repeat(1000))));
            let report = counters.report(|op| (op % 16 == 0).then_some("cuGraphExecMemcpyNodeSetParams"));
            assert!(serde_json::to_vec(&report).unwrap().len() < 120 << 10);
            sum.add(report);
        }
        assert_eq!(sum.kernels.len(), MAX_KERNELS);
    }

    #[test]
    fn a_report_survives_json() {
        let mut report = Report::default();
        report.calls.insert("cuInit".into(), Call { calls: 1, bytes: 2, nanos: 3 });
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
