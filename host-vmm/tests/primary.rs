//! Primary contexts of several devices, with a few lines of C in a driver's place: a runtime asks for all of them at its start, and most programs use one.

mod common;

use common::Client;
use common::stand_in::StandIn;
use protocol::{Status, ops};

/// Three devices. It notes which contexts it has made; its table for runtimes tells of them without that.
const DRIVER: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
typedef unsigned long long word;
static void *current;
static int contexts[3];
static void note(char what, int device) {
    FILE *log = fopen(DIR "/notes", "a");
    fprintf(log, "%c%d ", what, device);
    fclose(log);
}
unsigned cuInit(unsigned flags) { return 0; }
unsigned cuDeviceGetCount(int *count) { *count = 3; return 0; }
unsigned cuDevicePrimaryCtxRetain(void **out, int device) {
    if (device < 0 || device > 2) return 101;
    note('+', device);
    *out = &contexts[device];
    return 0;
}
unsigned cuDevicePrimaryCtxRelease_v2(int device) { note('-', device); return 0; }
unsigned cuCtxGetCurrent(void **out) { *out = current; return 0; }
unsigned cuCtxSetCurrent(void *to) { current = to; return 0; }
unsigned cuCtxSynchronize(void) { return 0; }
static unsigned tell(void **context, int device) { note('?', device); *context = &contexts[device]; return 0; }
static void *table[3] = { (void *)sizeof table, 0, tell };
unsigned cuGetExportTable(void **found, const unsigned char *id) {
    static const unsigned char runtime[16] =
        { 0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9 };
    if (memcmp(id, runtime, 16) || !access(DIR "/silent", F_OK)) return 500;
    if (!access(DIR "/short", F_OK)) table[0] = (void *)(2 * sizeof *table);
    *found = table;
    return 0;
}
"#;

fn told(client: &mut Client, device: i32) -> Result<u64, Status> {
    client.word(ops::primary_context, |w| {
        w.i32(device);
        w.present(true);
    })
}

fn retained(client: &mut Client, device: i32) -> Result<u64, Status> {
    client.word(ops::cuDevicePrimaryCtxRetain, |w| {
        w.present(true);
        w.i32(device);
    })
}

/// Asks for all contexts, as a runtime does, and retains that of device 1; returns the handles.
fn start(client: &mut Client) -> Vec<u64> {
    client.call(ops::cuInit, |w| w.u32(0)).unwrap();
    let all: Vec<u64> = (0..3).map(|device| told(client, device).unwrap()).collect();
    assert!(all[0] != all[1] && all[1] != all[2] && all[2] != all[0], "{all:x?}");
    assert_eq!(retained(client, 1), Ok(all[1]));
    assert_eq!(told(client, 1), Ok(all[1]));
    for device in [-1, 3] {
        assert_eq!(told(client, device), Err(Status::INVALID_DEVICE));
    }
    all
}

#[test]
fn a_context_that_is_asked_for_is_not_made() {
    let stand_in = StandIn::new(DRIVER);
    let daemon = stand_in.daemon(0);
    let mut client = Client::connect(&daemon.address);
    start(&mut client);
    // That of the first device is there in advance.
    assert_eq!(stand_in.wrote("notes"), "+0 ?1 ?2 +1 ");
}

#[test]
fn with_a_driver_that_does_not_tell_it_is_made() {
    for mood in ["silent", "short"] {
        let stand_in = StandIn::new(DRIVER);
        stand_in.set(mood);
        let daemon = stand_in.daemon(0);
        let mut client = Client::connect(&daemon.address);
        start(&mut client);
        assert_eq!(stand_in.wrote("notes"), "+0 +1 +2 ", "{mood}");
    }
}
