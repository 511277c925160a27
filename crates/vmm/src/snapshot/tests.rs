#![allow(clippy::unwrap_used)]
use super::*;

/// A record written by format 1, kept so that a change of shape without a new format is noticed.
const FIXTURE: &[u8] = include_bytes!("fixtures/format-1.state");

fn fixture() -> MachineRecord {
    decode(FIXTURE).unwrap()
}

#[test]
fn a_state_of_this_format_is_read_and_written_alike() {
    assert_eq!(encode(&fixture()).unwrap(), FIXTURE);
}

#[test]
fn a_flipped_byte_a_cut_and_a_tail_are_refused() {
    for at in (0..FIXTURE.len()).step_by(97) {
        let mut damaged = FIXTURE.to_vec();
        damaged[at] ^= 0x20;
        assert!(decode(&damaged).is_err(), "byte {at}");
        assert!(decode(&FIXTURE[..at]).is_err());
    }
    assert!(matches!(decode(&[FIXTURE, &[0]].concat()), Err(SnapshotError::Damaged)));
}

#[test]
fn another_format_is_named() {
    let mut newer = FIXTURE.to_vec();
    newer[8] = 9;
    assert!(matches!(decode(&newer), Err(SnapshotError::Format(9))));
    assert!(matches!(decode(b"QEVM, another engine's"), Err(SnapshotError::NoState)));
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_the_parser(bytes: Vec<u8>) {
        fuzz(&bytes);
    }
}
