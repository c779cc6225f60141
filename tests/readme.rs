//! The walk of `README.md`: its blocks, run as they stand there in one shell, do what the text around them says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use support::{Machine, have};

const SECTION: &str = "## A walk in five minutes";

/// The ports of the walk.
const PORTS: [u16; 3] = [17080, 17081, 17082];

fn walk() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = text.split_once(SECTION).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

/// What stands in the fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// A port of the walk that is taken on this machine is replaced by one that is not.
fn with_free_ports(text: &str) -> String {
    let mut kept = Vec::new();
    PORTS.iter().fold(text.to_owned(), |text, port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port));
        let listener = listener.unwrap_or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let free = listener.local_addr().unwrap().port();
        kept.push(listener);
        text.replace(&port.to_string(), &free.to_string())
    })
}

#[tokio::test]
async fn the_walk_works_as_pasted() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let text = walk();
    assert!(PORTS.iter().all(|port| text.contains(&port.to_string())));
    let text = with_free_ports(&text);
    let commands = blocks(&text, "bash");
    assert_eq!(commands.len(), 7);
    let machine = Machine::new();
    // Whatever happens, no registry is left running.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", commands.concat());
    let ran = machine.bash(machine.folder(), &script).await;
    assert_eq!(ran.status, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("s390x was left out, as planned"), "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("\"Architecture\": \"amd64\""), "{}", ran.out);
    // What the text shows is what was printed.
    for shown in blocks(&text, "text") {
        assert!(ran.out.contains(shown.trim_end()), "shown:\n{shown}\nprinted:\n{}", ran.out);
    }
    assert!(machine.path("walk/drive/first-1-1/bundle.json").exists());
}
