//! Runs the fuzz targets over their corpora, and over mutations of them. For longer runs see
//! docs/design.md, "Schemes as data".

use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use zentra_tests::fuzz::TARGETS;

/// Number of mutated inputs per target.
const DAMAGED: usize = 20_000;
/// Fragments that parsers often handle wrongly.
const STONES: [&[u8]; 24] = [
    b"",
    b"=",
    b",",
    b"\n",
    b"\n\n",
    b".",
    b" ",
    b":",
    b"t=",
    b"v1=",
    b"-1",
    b"0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"\xff",
    b"\0",
    b"1e999",
    b"99999999999999999999",
    b"%00",
];

/// Prints the input when a target panics.
struct PrintOnPanic<'a>(&'a str, &'a [u8]);

impl Drop for PrintOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the target {} broke over {:?}", self.0, String::from_utf8_lossy(self.1));
            println!("in hex: {}", hex::encode(self.1));
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn damaged(all: &[Vec<u8>], chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = all.choose(chance).unwrap().clone();
    for _ in 0..chance.random_range(1..=6) {
        let at = chance.random_range(0..=bytes.len());
        let end = (at + chance.random_range(0..8)).min(bytes.len());
        match chance.random_range(0..5) {
            0 => drop(bytes.splice(at..end, [])),
            1 => drop(bytes.splice(at..end, STONES.choose(chance).unwrap().iter().copied())),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            3 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << chance.random_range(0..8)),
            _ => {
                let other = all.choose(chance).unwrap();
                let from = chance.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

#[test]
fn no_input_breaks_a_promise_of_what_reads_it() {
    let mut chance = StdRng::seed_from_u64(8172);
    for (name, target) in TARGETS {
        let all = corpus(name);
        assert!(!all.is_empty(), "{name} has no corpus");
        for input in &all {
            let _told = PrintOnPanic(name, input);
            target(input);
        }
        for _ in 0..DAMAGED {
            let input = damaged(&all, &mut chance);
            let _told = PrintOnPanic(name, &input);
            target(&input);
        }
    }
}
