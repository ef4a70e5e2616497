//! Arbitrary bytes into what is read from ZooKeeper.

use quorumkv_fuzzing::{Case, fuzz};

use super::contenders::Contender;
use super::registry::{parse_epoch, parse_id};
use crate::fuzz::texts;

/// What it accepts is the number in decimal digits; zeros before it and white space around it change nothing.
#[test]
fn epoch_node() {
    let samples = texts(&["0", "17\n", " 18446744073709551615 ", "0007"]);
    fuzz!(samples, |case: &mut Case| {
        let Some(epoch) = parse_epoch(&case.bytes) else { return };
        let text = std::str::from_utf8(&case.bytes).expect("digits are text");
        let digits = text.trim().trim_start_matches('0');
        assert_eq!(if digits.is_empty() { "0" } else { digits }, epoch.to_string());
    });
}

#[test]
fn member_name() {
    let samples = texts(&["00000000000000ff", "ffffffffffffffff", "0123456789abcdef"]);
    fuzz!(samples, |case: &mut Case| {
        let Ok(name) = std::str::from_utf8(&case.bytes) else { return };
        if let Some(id) = parse_id(name) {
            assert_eq!(format!("{id:016x}"), name);
        }
    });
}

/// Two names never stand for the same contender: one is watched under the name that it has.
#[test]
fn contender_name() {
    let samples = texts(&["zk-1:5000_0000000007", "[::1]:1_2147483647", "a_b:80_-2147483648"]);
    fuzz!(samples, |case: &mut Case| {
        let Ok(name) = std::str::from_utf8(&case.bytes) else { return };
        let Some(contender) = Contender::parse(name) else { return };
        assert_eq!(contender.name, name);
        let (address, digits) = name.rsplit_once('_').expect("there is one");
        assert_eq!(contender.address, address);
        assert_eq!(digits.parse(), Ok(contender.sequence));
    });
}
