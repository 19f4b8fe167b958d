use super::*;
use proptest::prelude::*;

fn any_text() -> impl Strategy<Value = Text> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Text::from_bytes(&bytes))
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let head = (PREVIOUS..=CURRENT, 0u32..4, any::<u32>(), any::<u64>());
    (head, any::<[u8; 16]>(), any::<u32>(), any::<u32>(), any_text(), any::<[u64; 2]>()).prop_map(
        |((oldest, more, kind, capabilities), token, region_tag, pid, name, cookie)| Hello {
            newest: oldest + more,
            oldest,
            kind: ConnectionKind(kind),
            capabilities: Capabilities(capabilities),
            token: Token(token),
            region_tag,
            pid,
            name,
            // Not in version 1.
            cookie: if oldest + more >= 2 { cookie } else { [0; 2] },
        },
    )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (0u32..500, 12u32..30, any::<u32>(), 0..WINDOW_MAX_LEN / 4096, any::<[u64; 4]>(), any::<[u32; 3]>())
        .prop_map(
            |(
                body_words,
                ring_bits,
                staging,
                window_pages,
                [device, pinned, image, images],
                [lanes, modules, handles],
            )| {
                Limits {
                    max_body_len: body_words * 8,
                    request_ring_len: 1 << ring_bits,
                    reply_ring_len: 4096,
                    staging_len: staging & !4095,
                    window_len: window_pages * 4096,
                    device_memory_len: device,
                    pinned_memory_len: pinned,
                    max_image_len: image,
                    images_len: images,
                    max_lanes: lanes,
                    max_modules: modules,
                    max_handles: handles,
                }
            },
        )
}

proptest! {
    #[test]
    fn hello_round_trip(hello in any_hello()) {
        let mut body = Vec::new();
        let header = hello.encode(&mut body);
        prop_assert_eq!(header.len as usize, body.len());
        prop_assert!(header.len <= MAX_BODY);
        prop_assert_eq!(Hello::decode(&header, &body), Ok(hello));
    }

    #[test]
    fn welcome_round_trip(limits in any_limits(), version in PREVIOUS..=CURRENT, token: [u8; 16], words: [u32; 6], offset: u64) {
        let mut body = Vec::new();
        let control = ControlWelcome {
            version, capabilities: Capabilities(offset), token: Token(token), region_tag: words[0], worker_pid: words[1], limits,
        };
        let header = control.encode(&mut body);
        prop_assert_eq!(ControlWelcome::decode(&header, &body), Ok(control));
        let placement = LanePlacement { offset, request_ring_len: words[2], reply_ring_len: words[3], staging_len: words[4] };
        let lane = LaneWelcome { version, lane: words[5], placement };
        let header = lane.encode(&mut body);
        prop_assert_eq!(LaneWelcome::decode(&header, &body), Ok(lane));
    }

    #[test]
    fn refusal_round_trip(code: u32, text in any_text()) {
        let mut body = Vec::new();
        let refused = Refused { code: RefusalCode(code), text };
        let header = refused.encode(&mut body);
        prop_assert_eq!(Refused::decode(&header, &body), Ok(refused.clone()));
        prop_assert_eq!(LaneWelcome::decode(&header, &body), Err(HandshakeError::Refused(Box::new(refused.clone()))));
        prop_assert_eq!(ControlWelcome::decode(&header, &body), Err(HandshakeError::Refused(Box::new(refused))));
    }

    #[test]
    fn truncated_hello(hello in any_hello(), cut in any::<prop::sample::Index>()) {
        let mut body = Vec::new();
        let header = hello.encode(&mut body);
        let cut = cut.index(body.len());
        prop_assert!(Hello::decode(&header, &body[..cut]).is_err());
    }
}

fn hello() -> Hello {
    Hello::control(Region::new(9).unwrap(), 42, Text::new("prog"))
}

#[test]
fn version_1_programs_are_accepted_without_guest_memory() {
    let old = Hello { newest: 1, oldest: 0, ..hello() };
    let mut body = Vec::new();
    let header = old.encode(&mut body);
    let decoded = Hello::decode(&header, &body).unwrap();
    let (version, capabilities) = decoded.negotiate(PREVIOUS..=CURRENT, Capabilities::ALL).unwrap();
    assert_eq!(version, 1);
    assert!(!capabilities.contains(Capabilities::GUEST_MEMORY));
    assert!(capabilities.contains(Capabilities::WINDOW_FD.union(Capabilities::RINGS)));
}

#[test]
fn negotiation_takes_the_newest_common_version() {
    let both = PREVIOUS..=CURRENT;
    assert_eq!(hello().negotiate(both.clone(), Capabilities::RINGS), Ok((2, Capabilities::RINGS)));
    let newer = Hello { newest: 9, oldest: 1, ..hello() };
    assert_eq!(newer.negotiate(both.clone(), Capabilities::ALL), Ok((2, hello().capabilities)));
    assert_eq!(hello().negotiate(1..=1, Capabilities::ALL).unwrap().0, 1);
    let too_new = Hello { newest: 9, oldest: 3, ..hello() };
    assert_eq!(too_new.negotiate(both, Capabilities::ALL), Err(RefusalCode::VERSION));
    assert_eq!(
        Hello { newest: 0, oldest: 0, ..hello() }.negotiate(1..=1, Capabilities::ALL),
        Err(RefusalCode::VERSION)
    );
}

#[test]
fn a_session_has_one_kind_of_lane() {
    let choose = |capabilities: Capabilities| capabilities.union(Capabilities::PTX).choose_lanes();
    for (offered, chosen) in [
        (Capabilities::ALL, Some(Capabilities::SHARED_MEMORY)),
        (Capabilities::ALL.without(Capabilities::WINDOW_FD), Some(Capabilities::SHARED_GUEST_MEMORY)),
        (Capabilities::STREAM_LANES.union(Capabilities::RINGS), Some(Capabilities::STREAM_LANES)),
        (Capabilities::RINGS, None),
        (Capabilities::GUEST_MEMORY.union(Capabilities::WINDOW_FD), None),
    ] {
        let ways = Capabilities::SHARED_MEMORY.union(Capabilities::SHARED_GUEST_MEMORY);
        let rest = offered.without(ways.union(Capabilities::STREAM_LANES)).union(Capabilities::PTX);
        let chosen = chosen.map(|way| way.union(rest));
        assert_eq!(choose(offered), chosen, "{offered:?}");
    }
}

#[test]
fn unknown_versions_are_told_apart_from_garbage() {
    let mut body = Vec::new();
    let header = Hello { newest: 7, oldest: 5, ..hello() }.encode(&mut body);
    // What follows the version words is another layout in such a version.
    body.truncate(16);
    let error = Hello::decode(&header, &body).unwrap_err();
    assert_eq!(error, HandshakeError::Version { newest: 7, oldest: 5 });
    assert_eq!(RefusalCode::from(&error), RefusalCode::VERSION);
    let error = Hello::decode(&header, &body[..8]).unwrap_err();
    assert_eq!(RefusalCode::from(&error), RefusalCode::BAD_MAGIC);
    let error = Hello::decode(&FrameHeader::new(Kind::SYNC, 0, 0, 0), &[]).unwrap_err();
    assert_eq!(RefusalCode::from(&error), RefusalCode::KIND);
}

#[test]
fn only_newer_versions_may_append_words() {
    for (newest, accepted) in [(CURRENT, false), (CURRENT + 1, true)] {
        let mut body = Vec::new();
        let header = Hello { newest, ..hello() }.encode(&mut body);
        body.extend_from_slice(&[0; 8]);
        assert_eq!(Hello::decode(&header, &body).is_ok(), accepted, "newest {newest}");
    }
}

#[test]
fn default_limits_are_valid_and_bad_ones_refused() {
    assert!(Limits::default().is_valid());
    let bad = Limits { max_body_len: 64 << 10, ..Limits::default() };
    let welcome = ControlWelcome {
        version: CURRENT,
        capabilities: Capabilities::ALL,
        token: Token([7; 16]),
        region_tag: 9,
        worker_pid: 1,
        limits: bad,
    };
    let mut body = Vec::new();
    let header = welcome.encode(&mut body);
    assert_eq!(ControlWelcome::decode(&header, &body), Err(HandshakeError::Limits(Box::new(bad))));
}

#[test]
fn tokens_are_not_printed() {
    assert!(!std::format!("{:?}", Token([0xab; 16])).contains("ab"));
    assert!(!std::format!("{:?}", Token([171; 16])).contains("171"));
    let hello = Hello { token: Token([171; 16]), cookie: [171, 171], ..hello() };
    assert!(!std::format!("{hello:?}").contains("171"));
}
