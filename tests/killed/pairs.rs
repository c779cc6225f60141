//! Two processes on one store: the second is refused at once and says by which lock, or both do what they do alone.

use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sealift::sample::{ImageBuilder, SampleImage};

use super::support::sound::{assert_sound, recorded, snapshot};
use super::support::{Proxy, Said, World};

/// How often an export may be faster than whoever stops it.
const ATTEMPTS_MAX: usize = 20;

/// How often opening and rebuilding race.
const RACES: usize = 8;

/// Two streams: `a`, pulled and exported, whose image has a new tag since; and `b`, of which nothing was pulled yet.
struct Pair {
    world: World,
    /// Before the source.
    proxy: Proxy,
}

/// What the second process may do.
enum Then {
    Works,
    IsRefusedBy(&'static str),
}
use Then::{IsRefusedBy, Works};

impl Pair {
    async fn new() -> Self {
        let image = |number: u64, size: usize| {
            ImageBuilder::new().platform("linux", "amd64", "").random_layer(size, number).build().unwrap()
        };
        let images = [image(1, 3_000_000), image(2, 40_000), image(3, 50_000), image(4, 60_000)];
        let images: Vec<(&str, &SampleImage)> =
            ["first", "second", "third", "fourth"].into_iter().zip(&images).collect();
        let world = World::new(&images).await;
        let proxy = Proxy::start(&world.source_host()).await;
        world.write_spec("a", &proxy.host(), &["first"]);
        world.run(&["pull", "a.yaml"]).ok();
        world.run(&export("a", "drive")).ok();
        world.write_spec("a", &proxy.host(), &["first", "second"]);
        world.write_spec("b", &proxy.host(), &["third"]);
        Pair { world, proxy }
    }

    /// A command that waits for its first blob.
    async fn held(&self, arguments: &[&str]) -> Child {
        self.proxy.forget();
        self.proxy.hold_after(0);
        let child = self.world.command(arguments).spawn().unwrap();
        self.proxy.holding().await;
        child
    }

    /// Lets it go on; it must end well.
    fn release(&self, child: Child) {
        self.proxy.release();
        Said::from(child.wait_with_output().unwrap()).ok();
    }

    /// An export of `a` to `to`, which stands still after it has begun to write.
    async fn stopped(&self, to: &str) -> Child {
        for _ in 0..ATTEMPTS_MAX {
            self.world.remove(to);
            let mut child = self.world.command(&export("a", to)).spawn().unwrap();
            while !self.world.path(to).join("a-1-1").exists() && child.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if child.try_wait().unwrap().is_none() {
                signal(&child, Signal::STOP);
                if child.try_wait().unwrap().is_none() && !self.world.path(to).join("a-1-1/bundle.json").exists() {
                    return child;
                }
                signal(&child, Signal::CONT);
            }
            Said::from(child.wait_with_output().unwrap()).ok();
        }
        panic!("the export was always faster");
    }

    /// Runs each command beside one that is under way.
    fn beside(&self, table: &[(&[&str], Then)]) {
        for (arguments, then) in table {
            // What it changes must not change what the next one finds.
            let said = self.world.run(arguments);
            match then {
                Works => _ = said.ok(),
                IsRefusedBy(lock) => said.is_refused_by(lock),
            }
            assert_sound(&self.world.path("store"));
        }
    }

    fn assert_all_is_right(&self) {
        let store = self.world.path("store");
        for stream in ["a", "b"] {
            self.world.run(&["pull", &format!("{stream}.yaml")]).ok();
            let bundle = self.world.run(&export(stream, "right")).ok()["folder"].as_str().unwrap().to_owned();
            self.world.run(&["verify", &bundle, "--key", "exporter.pub"]).ok();
        }
        assert_eq!(assert_sound(&store), recorded(&store));
    }
}

fn export<'a>(stream: &'a str, to: &'a str) -> Vec<&'a str> {
    let key = ["--sign-key", "exporter.key", "--volume-size", "8MiB", "--output", "json"];
    [&["export", stream, "--to", to], &key[..]].concat()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_pull() {
    let pair = Pair::new().await;
    let before = snapshot(&pair.world.path("drive"));
    let pull = pair.held(&["pull", "a.yaml"]).await;
    pair.beside(&[
        (&["pull", "a.yaml"], IsRefusedBy("writer.lock")),
        (&["pull", "b.yaml"], IsRefusedBy("writer.lock")),
        (&["serve", "store", "--writable", "--listen", "127.0.0.1:0"], IsRefusedBy("writer.lock")),
        (&export("a", "to"), IsRefusedBy("records/a.lock")),
        (&["plan", "a.yaml"], Works),
        (&["plan", "b.yaml"], Works),
        (&["plan", "a.yaml", "--rebuild"], IsRefusedBy("lock")),
        (&["pull", "a.yaml", "--rebuild"], IsRefusedBy("lock")),
        (&[&export("a", "to")[..], &["--rebuild"]].concat(), IsRefusedBy("lock")),
        (&["verify", "drive/a-1-1", "--key", "exporter.pub"], Works),
    ]);
    pair.release(pull);
    assert_eq!(snapshot(&pair.world.path("drive")), before);
    // The other stream goes out while this one comes in, as it was pulled.
    pair.world.run(&["pull", "b.yaml"]).ok();
    pair.world.write_spec("a", &pair.proxy.host(), &["first", "fourth"]);
    let pull = pair.held(&["pull", "a.yaml"]).await;
    pair.beside(&[(&export("b", "to"), Works), (&["verify", "to/b-1-1", "--key", "exporter.pub"], Works)]);
    pair.release(pull);
    pair.assert_all_is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_export() {
    let pair = Pair::new().await;
    pair.world.run(&["pull", "b.yaml"]).ok();
    let to = pair.stopped("to").await;
    pair.beside(&[
        (&export("a", "other"), IsRefusedBy("records/a.lock")),
        (&export("a", "to"), IsRefusedBy("records/a.lock")),
        (&["pull", "a.yaml"], IsRefusedBy("records/a.lock")),
        (&export("b", "other"), Works),
        (&["pull", "b.yaml"], Works),
        (&["plan", "a.yaml"], Works),
        (&["plan", "a.yaml", "--rebuild"], IsRefusedBy("lock")),
    ]);
    signal(&to, Signal::CONT);
    Said::from(to.wait_with_output().unwrap()).ok();
    assert_eq!(snapshot(&pair.world.path("to/a-1-1")), snapshot(&pair.world.path("drive/a-1-1")));
    pair.assert_all_is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_server() {
    let pair = Pair::new().await;
    for writable in [false, true] {
        let mut arguments = vec!["serve", "store", "--listen", "127.0.0.1:0"];
        arguments.extend(writable.then_some("--writable"));
        let mut server = pair.world.command(&arguments).spawn().unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(server.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert!(line.starts_with("serving "), "{line}");
        let pull = || if writable { IsRefusedBy("writer.lock") } else { Works };
        pair.beside(&[
            (&["plan", "a.yaml"], Works),
            (&["pull", "a.yaml"], pull()),
            (&["pull", "b.yaml"], pull()),
            (&export("a", "to"), Works),
            (&["plan", "a.yaml", "--rebuild"], IsRefusedBy("lock")),
            (&["verify", "drive/a-1-1", "--key", "exporter.pub"], Works),
        ]);
        server.kill().unwrap();
        server.wait().unwrap();
    }
    pair.assert_all_is_right();
}

/// A plan that waits for its registry has the store open, and changes nothing that another one decides.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_plan() {
    let pair = Pair::new().await;
    // An image without an index: its config is read for its platform while it is planned.
    let single = ImageBuilder::new().platform("linux", "amd64", "").random_layer(1000, 4).single().build().unwrap();
    let writer = sealift::serve::Shelf::writer(&pair.world.source).unwrap();
    sealift::sample::seed(writer, "single", Some(&"1".parse().unwrap()), &single).unwrap();
    pair.world.write_spec("c", &pair.proxy.host(), &["single"]);
    pair.world.write_spec("b", &pair.world.source_host(), &["third"]);
    let plan = pair.held(&["plan", "c.yaml"]).await;
    pair.beside(&[
        (&["plan", "b.yaml"], Works),
        (&["pull", "b.yaml"], Works),
        (&export("b", "to"), Works),
        (&["plan", "b.yaml", "--rebuild"], IsRefusedBy("lock")),
        (&["pull", "b.yaml", "--rebuild"], IsRefusedBy("lock")),
    ]);
    pair.release(plan);
    pair.world.run(&["pull", "c.yaml"]).ok();
    pair.assert_all_is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_of_one_stream() {
    let pair = Pair::new().await;
    let target = Proxy::start(&pair.world.target_at.address().to_string()).await;
    let (held, direct) = (format!("{}/m", target.host()), format!("{}/m", pair.world.target_at.address()));
    let replay = |to: &str| pair.world.command(&["replay", "drive/a-1-1", "--key", "exporter.pub", "--to", to]).spawn();
    target.hold_after(0);
    let first = replay(&held).unwrap();
    target.holding().await;
    let second: Said = replay(&direct).unwrap().wait_with_output().unwrap().into();
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(
        second.err.contains("another replay of this stream holds") && second.err.contains("help: wait"),
        "{second:?}"
    );
    target.release();
    Said::from(first.wait_with_output().unwrap()).ok();
}

/// Nobody sees a catalog that is half made: whoever comes while it is made waits, and two that make it do it one after
/// the other, or one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn rebuilding_races_with_opening() {
    let pair = Pair::new().await;
    let commands: [&[&str]; 4] = [
        &["plan", "a.yaml", "--rebuild"],
        &["plan", "a.yaml"],
        &["plan", "b.yaml", "--rebuild"],
        &[&export("a", "to")[..], &["--rebuild"]].concat(),
    ];
    for _ in 0..RACES {
        let running: Vec<Child> =
            commands.iter().map(|arguments| pair.world.command(arguments).spawn().unwrap()).collect();
        for (child, arguments) in running.into_iter().zip(commands) {
            let said = Said::from(child.wait_with_output().unwrap());
            match said.status {
                Some(0) => {}
                _ if arguments.contains(&"--rebuild") => said.is_refused_by("lock"),
                _ => panic!("{arguments:?}: {said:?}"),
            }
        }
        let store = pair.world.path("store");
        assert_eq!(assert_sound(&store), recorded(&store));
    }
    assert_eq!(pair.world.run(&export("a", "drive")).ok()["bundle"], "a-1-1");
    pair.assert_all_is_right();
}
