//! Tests of [`crate::broker`], apart from it because the kernel module compiles that file.

use std::vec::Vec;

use proptest::prelude::*;

use crate::broker::*;

fn guest(bytes: &[u8]) -> Result<GuestMessage<'_>, MessageError> {
    let (header, body) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(header)?;
    assert_eq!(header.len, body.len());
    GuestMessage::decode(header.kind, body)
}

fn host(bytes: &[u8]) -> Result<HostMessage, MessageError> {
    let (header, body) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(header)?;
    assert_eq!(header.len, body.len());
    HostMessage::decode(header.kind, body)
}

fn guest_message() -> impl Strategy<Value = GuestMessage<'static>> {
    let (a, b, c, d) = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    prop_oneof![
        (a, [b, c], d).prop_map(|(version, instance, held)| GuestMessage::Hello(Hello {
            version,
            instance,
            held
        })),
        (any::<u64>(), any::<[u64; 2]>(), any::<u32>(), any::<u32>()).prop_map(
            |(session, cookie, uid, pid)| GuestMessage::SessionBegin(SessionBegin {
                session,
                cookie,
                uid,
                pid
            })
        ),
        (any::<u64>(), any::<u64>())
            .prop_map(|(session, region)| GuestMessage::RegionRemove(RegionName { session, region })),
        any::<u64>().prop_map(GuestMessage::SessionEnd),
    ]
}

fn host_message() -> impl Strategy<Value = HostMessage> {
    let name = || (any::<u64>(), any::<u64>()).prop_map(|(session, region)| RegionName { session, region });
    let code = || any::<u64>().prop_map(Code);
    prop_oneof![
        any::<[u64; 5]>().prop_map(|[version, max_sessions, max_regions, max_extents, max_region_bytes]| {
            HostMessage::Welcome(Welcome {
                version,
                max_sessions,
                max_regions,
                max_extents,
                max_region_bytes,
            })
        }),
        code().prop_map(HostMessage::Refused),
        (any::<u64>(), code()).prop_map(|(session, code)| HostMessage::SessionBegun { session, code }),
        (name(), code()).prop_map(|(name, code)| HostMessage::RegionAdded { name, code }),
        name().prop_map(HostMessage::RegionReleased),
        any::<u64>().prop_map(HostMessage::SessionReleased),
        Just(HostMessage::Fenced),
    ]
}

proptest! {
    #[test]
    fn guest_messages_round_trip(message in guest_message()) {
        let mut out = [0xa5; MAX_MESSAGE];
        let len = message.encode(&mut out).unwrap();
        prop_assert_eq!(guest(&out[..len]), Ok(message));
        prop_assert_eq!(message.encode(&mut out[..len - 1]), None);
    }

    #[test]
    fn host_messages_round_trip(message in host_message()) {
        let mut out = [0xa5; HostMessage::MAX_LEN];
        let len = message.encode(&mut out).unwrap();
        prop_assert_eq!(host(&out[..len]), Ok(message));
        prop_assert_eq!(message.encode(&mut out[..len - 1]), None);
    }

    #[test]
    fn extents_round_trip(words in prop::collection::vec(any::<[u64; 2]>(), 1..=MAX_EXTENTS_PER_MESSAGE), total in any::<u32>()) {
        let extents: Vec<Extent> = words.into_iter().map(|[gpa, len]| Extent { gpa, len }).collect();
        let none = GuestMessage::decode(Kind::REGION_ADD, &[0; 64]).unwrap();
        let GuestMessage::RegionAdd(mut head) = none else { unreachable!() };
        (head.session, head.region, head.kind, head.len, head.extents_total, head.first) = (1, 2, RegionKind::PINNED, 3, total, 4);
        let mut out = [0; MAX_MESSAGE];
        let len = encode_region_add(&head, &extents, &mut out).unwrap();
        let Ok(GuestMessage::RegionAdd(add)) = guest(&out[..len]) else { panic!("not a region") };
        prop_assert_eq!(add.extents.iter().collect::<Vec<_>>(), extents);
        head.extents = add.extents;
        prop_assert_eq!(add, head);
    }
}

#[test]
fn layout_is_the_documented_one() {
    let mut out = [0; 64];
    let message = GuestMessage::RegionRemove(RegionName { session: 0x0102, region: 3 });
    assert_eq!(message.encode(&mut out), Some(32));
    assert_eq!(
        out[..32],
        [
            b'c', b'u', b'B', b'k', 4, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
            0, 0, 0, 0
        ]
    );
}

#[test]
fn malformed_headers_and_bodies() {
    let mut out = [0; 64];
    let len = GuestMessage::SessionEnd(1).encode(&mut out).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = out;
        bytes[at] = value;
        guest(&bytes[..len]).unwrap_err()
    };
    assert_eq!(changed(0, 0), MessageError::Magic);
    assert_eq!(changed(6, 1), MessageError::Header);
    assert_eq!(changed(8, 9), MessageError::Header);
    assert_eq!(changed(10, 1), MessageError::Header);
    assert_eq!(changed(12, 1), MessageError::Header);
    assert_eq!(changed(4, 99), MessageError::Kind(Kind(99)));
    assert_eq!(changed(4, 4), MessageError::Length(Kind::REGION_REMOVE));
    assert_eq!(GuestMessage::decode(Kind::REGION_ADD, &[0; 40]), Err(MessageError::Length(Kind::REGION_ADD)));
    assert_eq!(GuestMessage::decode(Kind::REGION_ADD, &[0; 48]), Err(MessageError::Value(Kind::REGION_ADD)));
    assert_eq!(GuestMessage::decode(Kind::REGION_ADD, &[0; 56]), Err(MessageError::Length(Kind::REGION_ADD)));
    assert_eq!(
        GuestMessage::decode(Kind::REGION_ADD, &[0xff; 64]),
        Err(MessageError::Value(Kind::REGION_ADD))
    );
}

#[test]
fn extents_are_whole_pages() {
    let end = |gpa, len| Extent { gpa, len }.end();
    assert_eq!(end(0x1000, 0x2000), Some(0x3000));
    assert_eq!(end(0x1000, 0), None);
    assert_eq!(end(0x1001, 0x1000), None);
    assert_eq!(end(0x1000, 0x1001), None);
    assert_eq!(end(u64::MAX - 4095, 0x1000), None);
    assert_eq!(end(u64::MAX - 4095, 0x2000), None);
}
