//! Events whose handles the program gives: with the CPU backend, and with a few lines of C in a driver's place.

mod common;

use common::stand_in::StandIn;
use common::{Client, Daemon};
use protocol::{Status, named, ops};

/// It counts its events, and gives them numbers that no program has given.
const DRIVER: &str = r#"
#include <stdio.h>
typedef unsigned long long word;
static void *current;
static int context;
static word made, there;
static void note(void) {
    FILE *log = fopen(DIR "/events", "w");
    fprintf(log, "%llu made, %llu there", made, there);
    fclose(log);
}
unsigned cuInit(unsigned flags) { return 0; }
unsigned cuDeviceGetCount(int *count) { *count = 1; return 0; }
unsigned cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return 0; }
unsigned cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
unsigned cuCtxGetCurrent(void **out) { *out = current; return 0; }
unsigned cuCtxSetCurrent(void *to) { current = to; return 0; }
unsigned cuCtxGetDevice(int *device) { *device = 0; return 0; }
unsigned cuCtxSynchronize(void) { return 0; }
unsigned cuMemHostRegister_v2(void *p, unsigned long length, unsigned flags) { return 0; }
unsigned cuMemHostUnregister(void *p) { return 0; }
unsigned cuEventCreate(word *event, unsigned flags) {
    if (flags & ~7) return 1;
    *event = 0x7000 + 16 * ++made, there++;
    note();
    return 0;
}
unsigned cuEventQuery(word event) { return event > 0x7000 && event <= 0x7000 + 16 * made ? 0 : 999; }
unsigned cuEventDestroy_v2(word event) { there--; note(); return 0; }
unsigned cuStreamQuery(word stream) { return 999; }
"#;

const HANDLES: &str = "40";

fn create(client: &mut Client, handle: u64, flags: u32) -> Result<(), Status> {
    let created = client.call(ops::event_create, |w| {
        w.u64(handle);
        w.u32(flags);
    });
    created.map(drop)
}

fn ask(client: &mut Client, op: u16, handle: u64) -> Result<(), Status> {
    client.call(op, |w| w.u64(handle)).map(drop)
}

/// Returns how many events have been made, and how many are left.
fn handles_are_given_once(client: &mut Client) -> (u64, u64) {
    client.set_up();
    let (first, second) = (named::nth(0).unwrap(), named::nth(u64::MAX >> 2).unwrap());
    assert_eq!(create(client, first, 2), Ok(()));
    assert_eq!(create(client, second, 0), Ok(()));
    assert_eq!(create(client, first, 2), Err(Status::INVALID_VALUE), "in use");
    for other in [0, 2, 7 << 32, 1 << 63, u64::MAX] {
        assert_eq!(create(client, other, 0), Err(Status::INVALID_VALUE), "{other:#x}");
    }
    assert_eq!(create(client, first + 5, 0x80), Err(Status::INVALID_VALUE), "no such flag");
    assert_eq!(ask(client, ops::cuEventQuery, first), Ok(()));
    assert_eq!(ask(client, ops::cuEventQuery, first + 5), Err(Status::INVALID_HANDLE));
    assert_eq!(ask(client, ops::cuStreamQuery, first), Err(Status::INVALID_HANDLE), "an event is no stream");
    // The worker's own handles go on beside them.
    let own = client
        .word(ops::cuEventCreate, |w| {
            w.present(true);
            w.u32(0);
        })
        .unwrap();
    assert!(!named::is_named(own));
    assert_eq!(create(client, own, 0), Err(Status::INVALID_VALUE));

    // Destroyed without waiting, and given again.
    client.post(ops::cuEventDestroy_v2, |w| w.u64(first));
    assert_eq!(ask(client, ops::cuEventQuery, first), Err(Status::INVALID_HANDLE));
    assert_eq!(ask(client, ops::cuEventDestroy_v2, first), Err(Status::INVALID_HANDLE));
    assert_eq!(create(client, first, 0), Ok(()));
    assert_eq!(ask(client, ops::cuEventQuery, first), Ok(()));

    // The limit is the same for both kinds.
    let made = (1..100).take_while(|next| create(client, first + 10 + next, 0).is_ok()).count() as u64;
    assert!((20..40).contains(&made), "{made} more");
    assert_eq!(create(client, first + 1000, 0), Err(Status::OUT_OF_MEMORY));
    assert_eq!(ask(client, ops::cuEventDestroy_v2, own), Ok(()));
    assert_eq!(create(client, first + 1000, 0), Ok(()));
    (made + 5, made + 3)
}

#[test]
fn with_the_cpu_backend() {
    let daemon = Daemon::start(&["--max-handles", HANDLES]);
    handles_are_given_once(&mut Client::connect(&daemon.address));
}

#[test]
fn with_a_driver_that_loses_no_event() {
    let driver = StandIn::new(DRIVER);
    let library = driver.library();
    let options = ["--backend", "cuda", "--libcuda", library.to_str().unwrap(), "--max-handles", HANDLES];
    let daemon = Daemon::start(&options);
    let (made, left) = handles_are_given_once(&mut Client::connect(&daemon.address));
    assert_eq!(driver.wrote("events"), format!("{made} made, {left} there"));
}
