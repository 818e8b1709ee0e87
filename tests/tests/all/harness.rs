//! The harness itself: everything that it starts ends with it.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use zentra_tests::services::{self, poll, workplace};
use zentra_tests::world::BOUND;

/// Where the victim, which is this same program, writes what it has started.
const VICTIM: &str = "ZENTRA_VICTIM";

#[test]
fn a_test_run_killed_with_9_leaves_no_server_and_no_folder() {
    if let Ok(report) = std::env::var(VICTIM) {
        return be_the_victim(&report);
    }
    let report = workplace().join("victim");
    let name = "harness::a_test_run_killed_with_9_leaves_no_server_and_no_folder";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(VICTIM, &report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let printed = poll(BOUND, || {
        let text = std::fs::read_to_string(&report).ok()?;
        let (port, folder) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((port.parse::<u16>().ok()?, std::path::PathBuf::from(folder)))
    });
    let (port, folder) = printed.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok() && folder.exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let gone = || TcpStream::connect(("127.0.0.1", port)).is_err() && !folder.exists();
    assert!(poll(BOUND, || gone().then_some(())).is_some(), "something is left");
}

fn be_the_victim(report: &str) {
    let redis = services::redis();
    let text = format!("{} {}\n", redis.port(), workplace().display());
    std::fs::write(report, text).unwrap();
    loop {
        std::thread::park();
    }
}
