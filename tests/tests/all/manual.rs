//! Shell completions and manual pages.

use std::io::Write;
use std::process::{Command, Stdio};

use zentra_tests::services::folder;
use zentra_tests::stack::Stack;

#[test]
fn each_shell_gets_its_completions_and_each_command_a_page() {
    let stack = Stack::new("", "", "none", "http://127.0.0.1:9/", "");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let made = stack.zentra(&["completions", shell]);
        assert!(made.status.success() && made.stdout.len() > 1000, "{shell}: {made:?}");
    }
    let script = stack.zentra(&["completions", "bash"]).stdout;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(bash.wait().unwrap().success(), "bash can read it");

    let pages = folder("man");
    let made = stack.zentra(&["man", &pages.display().to_string()]);
    assert!(made.status.success(), "{made:?}");
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("zentra.1").contains("zentra\\-event"), "{}", page("zentra.1"));
    assert!(page("zentra-event-show.1").contains(".TH zentra-event-show 1"));
    assert!(page("zentra-destination-pause.1").contains("because"));
    let nowhere = stack.zentra(&["man", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("Name an existing folder"));
}
