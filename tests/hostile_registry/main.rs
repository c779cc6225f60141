//! A registry that wants to harm: whatever it answers, a command ends soon, takes little, says what is wrong in one line, and
//! asks nobody else.
//!
//! What is said about wrong content is in `tests/bad_source.rs`; this is about what a command costs, with the binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod rows;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use server::{Hostile, Respond};
use support::Machine;

/// What a command may take.
const CPU_MAX: f64 = if cfg!(debug_assertions) { 2.0 } else { 1.0 };
const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// Five attempts, the waits between them, and a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// The longest error with its help, in bytes, and what else may be said on standard error.
const SAID_MAX: usize = 4_000;

/// How many rows run at the same time: most of them wait before they try again.
const AT_ONCE: usize = 8;

/// Which tags are asked for.
#[derive(Clone, Copy)]
enum Asked {
    /// The tag `1`.
    One,
    /// All.
    All,
}

/// What a registry does, how a pull ends, and what it says.
struct Row {
    name: &'static str,
    asked: Asked,
    respond: Respond,
    status: i32,
    says: &'static str,
}

/// What one command took.
struct Cost {
    cpu: f64,
    kib: u64,
}

/// What is wrong with a row: nothing, if all is well.
async fn faults_of(row: &Row, measured: bool) -> Vec<String> {
    let hostile = Hostile::start(row.respond);
    let machine = Machine::new();
    let tags = match row.asked {
        Asked::One => "exact: ['1']",
        Asked::All => "glob: ['*']",
    };
    machine.write(
        "spec.yaml",
        &format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: hostile\ndefaults:\n  platforms: [linux/amd64]\nimages:\n\
             \x20 - {{source: {}/team/app, tags: {{{tags}}}}}\n",
            hostile.host()
        ),
    );
    let sealift = env!("CARGO_BIN_EXE_sealift");
    let mut command = match measured {
        true => machine.command("time"),
        false => machine.command(sealift),
    };
    if measured {
        command.args(["-q", "-f", "%M %U %S", "-o", "cost", sealift]);
    }
    let ended = command.args(["pull", "spec.yaml", "--store", "store"]).output();
    let Ok(output) = tokio::time::timeout(ENDS_WITHIN, ended).await else {
        return vec![format!("{}: did not end", row.name)];
    };
    let output = output.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let errors = err.lines().filter(|line| line.starts_with("error: ")).count();
    let plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    let cost = cost(&machine);
    let checks = [
        (output.status.code() == Some(row.status), format!("ended with {:?}", output.status.code())),
        (errors == usize::from(row.status != 0), format!("says {errors} errors")),
        (err.contains(row.says), "says something else".to_owned()),
        (err.len() < SAID_MAX, format!("says {} bytes", err.len())),
        (plain(&err) && plain(&out), "says control characters".to_owned()),
        (cost.cpu < CPU_MAX, format!("took {} s of CPU", cost.cpu)),
        (cost.kib < MEMORY_MAX_KIB, format!("took {} KiB", cost.kib)),
        (hostile.others() == 0, format!("asked another host {} times", hostile.others())),
    ];
    let said: String = err.chars().take(SAID_MAX).collect();
    checks.into_iter().filter(|(good, _)| !good).map(|(_, what)| format!("{}: {what}: {said}", row.name)).collect()
}

/// What looking at the image costs: how it ends, and what it says, is not the row's.
async fn faults_of_inspect(row: &Row, measured: bool) -> Vec<String> {
    let hostile = Hostile::start(row.respond);
    let machine = Machine::new();
    let sealift = env!("CARGO_BIN_EXE_sealift");
    let mut command = machine.command(if measured { "time" } else { sealift });
    if measured {
        command.args(["-q", "-f", "%M %U %S", "-o", "cost", sealift]);
    }
    let ended = command.args(["inspect", &format!("{}/team/app:1", hostile.host())]).output();
    let Ok(output) = tokio::time::timeout(ENDS_WITHIN, ended).await else {
        return vec![format!("{}: did not end", row.name)];
    };
    let output = output.unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let cost = cost(&machine);
    let checks = [
        (matches!(output.status.code(), Some(0..=6)), format!("ended with {:?}", output.status.code())),
        (said.chars().all(|c| c == '\n' || !c.is_control()), "says control characters".to_owned()),
        (cost.cpu < CPU_MAX, format!("took {} s of CPU", cost.cpu)),
        (cost.kib < MEMORY_MAX_KIB, format!("took {} KiB", cost.kib)),
        (hostile.others() == 0, format!("asked another host {} times", hostile.others())),
    ];
    let said: String = said.chars().take(SAID_MAX).collect();
    checks.into_iter().filter(|(good, _)| !good).map(|(_, what)| format!("{}: {what}: {said}", row.name)).collect()
}

/// What time(1) has measured; nothing where it did not run.
fn cost(machine: &Machine) -> Cost {
    let Ok(text) = std::fs::read_to_string(machine.path("cost")) else { return Cost { cpu: 0.0, kib: 0 } };
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [kib, user, system] = numbers[..] else { panic!("{text}") };
    Cost { cpu: user + system, kib: kib as u64 }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded_or_refused_and_nobody_else_is_asked() {
    // Without time(1), all but the cost is looked at.
    let measured = support::have(&["time"]);
    let faults: Vec<String> = stream::iter(rows::ROWS)
        .map(|row| faults_of(row, measured))
        .buffer_unordered(AT_ONCE)
        .flat_map(stream::iter)
        .collect()
        .await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_an_image_is_bounded_too() {
    let measured = support::have(&["time"]);
    let rows = rows::ROWS.iter().filter(|row| matches!(row.asked, Asked::One));
    let faults: Vec<String> = stream::iter(rows)
        .map(|row| faults_of_inspect(row, measured))
        .buffer_unordered(AT_ONCE)
        .flat_map(stream::iter)
        .collect()
        .await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
