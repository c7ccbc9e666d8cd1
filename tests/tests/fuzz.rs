//! The fuzz targets without a fuzzer: every file of their corpora, and
//! mutations of it.

use std::panic::catch_unwind;

use ocs_lb_fuzz_targets::{TARGETS, Target, corpus};
use ocs_lb_tests::packet::dump;
use ocs_lb_tests::random::Random;

/// Mutations of each file; `OCS_LB_MUTATIONS` asks for another number.
const MUTATIONS: usize = 4_000;

/// Runs a target; a panic names what it met.
fn hold(target: Target, what: &str, bytes: &[u8]) {
    let done = catch_unwind(|| target(bytes));
    assert!(done.is_ok(), "{what}:\n{}", dump(bytes));
}

/// Changes bytes as a fuzzer does: bits, values at a border, pieces that go,
/// come twice or come from another file.
fn mutate(bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)], random: &mut Random) {
    const BORDERS: [u8; 8] = [0, 1, 3, 8, 0x0f, 0x7f, 0x80, 0xff];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let end = at + 1 + random.below((bytes.len() - at).min(16));
        match random.below(8) {
            0..=1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 => bytes[at] = BORDERS[random.below(BORDERS.len())],
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => bytes.truncate(at),
            _ => {
                let (_, other) = &others[random.below(others.len())];
                let from = at.min(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
}

#[test]
fn corpora_and_mutations_hold() {
    let mutations =
        std::env::var("OCS_LB_MUTATIONS").map_or(MUTATIONS, |text| text.parse().expect("a number"));
    for (name, target) in TARGETS {
        let corpus = corpus::read(name).expect("a corpus");
        assert!(corpus.len() >= 5, "{name}: a corpus of {}", corpus.len());
        for (seed, (file, bytes)) in corpus.iter().enumerate() {
            hold(target, &format!("{name}/{file}"), bytes);
            let mut random = Random::new(seed as u64);
            for at in 0..mutations {
                let mut bytes = bytes.clone();
                mutate(&mut bytes, &corpus, &mut random);
                hold(target, &format!("{name}/{file}, mutation {at}"), &bytes);
            }
        }
    }
}
