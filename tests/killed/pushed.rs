//! A writable `serve` that is killed while it takes a push.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift::serve::StoreShelf;
use sealift::store::{Access, Store};

use super::commands::{FEW, rage_500};
use super::moments::{Ended, Storm, rage};
use super::state::{Fixture, assert_nothing_is_left_over};
use super::support::Said;
use super::support::sound::assert_sound;

struct ServeStorm(Fixture);

impl ServeStorm {
    fn serve(&self) -> Child {
        let arguments = ["serve", "pushed", "--writable", "--listen", "127.0.0.1:0"];
        self.0.world.command(&arguments).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the server listens; its address, or `None` when it was killed before.
    fn address(server: &mut Child) -> Option<String> {
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Some(line.split_once("http://")?.1.split_whitespace().next()?.to_owned())
    }

    fn push(&self, address: &str) -> Command {
        self.0.world.remove("state");
        self.0.world.command(&["replay", "drive/world-1-1", "--key", "exporter.pub", "--to", &format!("{address}/m")])
    }

    fn place(&self) -> impl Fn(&str) -> String {
        let host = self.0.world.source_host().replace(':', "_");
        move |name| format!("m/{host}/{name}")
    }

    /// What the next server would show.
    fn shelf(&self) -> StoreShelf {
        let store = Store::open(&self.0.world.path("pushed"), Access::Shared).unwrap();
        StoreShelf::new(Arc::new(store), true).unwrap()
    }
}

impl Storm for ServeStorm {
    fn begin(&mut self) {
        self.0.world.remove("pushed");
    }

    /// The server; see [`ServeStorm::push`] for what is done to it.
    fn command(&self) -> Command {
        self.push("")
    }

    fn kill(&self, moment: Duration) -> Ended {
        let due = Instant::now() + moment;
        let mut server = self.serve();
        let mut waiting = server.stdout.take();
        std::thread::scope(|scope| {
            // Waits for the address and pushes, while the moment comes.
            let pusher = scope.spawn(move || {
                let mut line = String::new();
                BufReader::new(waiting.take().unwrap()).read_line(&mut line).unwrap();
                let address = line.split_once("http://")?.1.split_whitespace().next()?.to_owned();
                self.push(&address).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
            });
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            server.kill().unwrap();
            server.wait().unwrap();
            let Some(mut client) = pusher.join().unwrap() else { return Ended::Hit };
            let ended = client.try_wait().unwrap().is_some_and(|status| status.success());
            // It would try again for long: there is no server any more.
            let _ = client.kill();
            client.wait().unwrap();
            if ended { Ended::ByItself } else { Ended::Hit }
        })
    }

    fn complete(&self) -> Said {
        let mut server = self.serve();
        let address = Self::address(&mut server).unwrap();
        let said = self.push(&address).output().unwrap().into();
        let _ = server.kill();
        server.wait().unwrap();
        said
    }

    fn check(&self) {
        assert_sound(&self.0.world.path("pushed"));
        self.0.assert_tags_are_whole(&self.shelf(), self.place());
    }

    fn finished(&self, said: &Said) {
        said.ok();
        let pushed = self.0.world.path("pushed");
        assert_sound(&pushed);
        self.0.assert_all_is_published(&self.shelf(), self.place());
        assert_nothing_is_left_over(&pushed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_keeps_what_it_has_taken() {
    rage(&mut ServeStorm(Fixture::small().await), FEW, 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills 500 times"]
async fn a_server_is_killed_500_times() {
    rage_500(ServeStorm, 40).await;
}
