//! Lists of devices, as in `CUDA_VISIBLE_DEVICES`.

use crate::Capabilities;

/// The number of devices that a list names if it is `0`, `0,1`, `0,1,2` ...: the first ones in their own order, written as plainly as that. A driver that shows no more
/// devices than these shows the same ones, under the same numbers, with the list and without it.
pub fn in_order(list: &[u8]) -> Option<usize> {
    let mut count = 0;
    for entry in list.split(|byte| *byte == b',') {
        if entry.is_empty() || (entry[0] == b'0' && entry.len() > 1) || parse(entry)? != count {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// Digits and nothing else.
fn parse(entry: &[u8]) -> Option<usize> {
    entry.iter().try_fold(0usize, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// What a hello says about the program's list: whether a worker will do whose driver has been started without it.
pub fn capabilities(list: Option<&[u8]>) -> Capabilities {
    match list {
        None => Capabilities::ALL_DEVICES,
        Some(list) if in_order(list).is_some() => Capabilities::FIRST_DEVICES,
        Some(_) => Capabilities::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn only_the_plain_form_counts() {
        assert_eq!(in_order(b"0"), Some(1));
        assert_eq!(in_order(b"0,1,2,3,4,5,6,7,8,9,10"), Some(11));
        for other in [
            "", "1", "1,0", "0,0", "0,2", "00", "0,01", "0,", ",0", " 0", "0 ", "0, 1", "-1", "0,-1",
            "GPU-1", "+0",
        ] {
            assert_eq!(in_order(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(in_order(b"99999999999999999999999999999999"), None);
    }

    #[test]
    fn what_the_hello_says() {
        assert_eq!(capabilities(None), Capabilities::ALL_DEVICES);
        assert_eq!(capabilities(Some(b"0,1")), Capabilities::FIRST_DEVICES);
        assert_eq!(capabilities(Some(b"1")), Capabilities::NONE);
        assert_eq!(capabilities(Some(b"")), Capabilities::NONE);
    }

    proptest! {
        #[test]
        fn a_list_in_order_is_what_its_length_says(list in "[0-9, -]{0,12}") {
            if let Some(count) = in_order(list.as_bytes()) {
                let plain: Vec<String> = (0..count).map(|device| std::format!("{device}")).collect();
                prop_assert_eq!(plain.join(","), list);
            }
        }
    }
}
