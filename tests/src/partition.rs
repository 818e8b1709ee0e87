//! A network that is cut, by rules of `iptables` between two addresses of this machine.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Packets between one address and others are dropped until this is dropped.
pub struct Partition(Vec<[String; 2]>);

impl Partition {
    /// Whether this machine allows it: it needs root and `iptables`.
    pub fn is_possible() -> bool {
        run(&["--list", "INPUT"])
    }

    /// Cuts `one` off from the others.
    pub fn between(one: Ipv4Addr, others: &[Ipv4Addr]) -> Self {
        let both = |other: &Ipv4Addr| {
            [[one.to_string(), other.to_string()], [other.to_string(), one.to_string()]]
        };
        let cut = Self(others.iter().flat_map(both).collect());
        assert!(cut.0.iter().all(|way| rule("--append", way)), "iptables refuses a rule");
        cut
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        for way in &self.0 {
            rule("--delete", way);
        }
    }
}

fn rule(does: &str, [from, to]: &[String; 2]) -> bool {
    run(&[does, "INPUT", "--source", from, "--destination", to, "--jump", "DROP"])
}

fn run(arguments: &[&str]) -> bool {
    let mut command = Command::new("iptables");
    command.arg("--wait").args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
