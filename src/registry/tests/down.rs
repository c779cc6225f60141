use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::oci::{Descriptor, MediaType, Name, Repository, Tag};
use crate::registry::health::Health;

/// Requests at once, and attempts of each.
const AT_ONCE: usize = 16;
const ATTEMPTS: usize = 5;

/// The tags of a busy night.
const TAGS: usize = 40;

/// A port where `keep` says what becomes of connections, and how many came.
async fn port<F: Future<Output = ()> + Send>(
    keep: impl Fn(TcpStream) -> F + Send + 'static,
) -> (Repository, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = format!("{}/team/app", listener.local_addr().unwrap()).parse().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let counter = came.clone();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            keep(connection).await;
        }
    });
    (repository, came)
}

fn at(repository: &Repository) -> Remote {
    client(&Config::default(), Credentials::anonymous()).repository(repository)
}

/// Looks all tags up at the same time; the errors.
async fn look_up_all(remote: &Remote) -> Vec<String> {
    let names = (0..TAGS).map(|n| Name::from(format!("v{n}").parse::<Tag>().unwrap()));
    let asked = join_all(names.map(|name| async move { remote.head_manifest(&name).await })).await;
    let told: Vec<String> = asked.into_iter().filter_map(|answer| Some(format!("{:?}", answer.err()?))).collect();
    assert_eq!(told.len(), TAGS, "each of them failed");
    for (n, text) in told.iter().enumerate() {
        let host = remote.repository().registry().to_string();
        assert!(text.contains(&host) && text.contains(&format!("team/app:v{n}")) && text.contains("help:"), "{text}");
    }
    told
}

#[tokio::test]
async fn a_dead_port_is_found_once_and_every_image_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository: Repository = format!("{}/team/app", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let told = look_up_all(&at(&repository)).await;
    let rested = told.iter().filter(|text| text.contains("was found down 0 s ago: 5 attempts, the last: connect to"));
    assert!(rested.count() >= TAGS - AT_ONCE, "{told:?}");
}

#[tokio::test]
async fn connections_to_what_is_down_are_few() {
    let (repository, came) = port(|connection| async move { drop(connection) }).await;
    let remote = at(&repository);
    look_up_all(&remote).await;
    let found = came.load(Ordering::Relaxed);
    assert!((ATTEMPTS..=AT_ONCE + ATTEMPTS).contains(&found), "{found} connections");
    // All that is asked now is told so at once, whatever it is.
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"layer");
    assert!(remote.open_blob(&descriptor, 0).await.is_err());
    assert!(remote.push_blob(&descriptor, |_| async { Ok(Body::full("layer")) }).await.is_err());
    assert!(remote.tags().await.is_err());
    assert!(remote.referrers(&descriptor.digest).await.is_err());
    assert_eq!(came.load(Ordering::Relaxed), found);
}

#[tokio::test]
async fn one_after_the_other_there_is_one_undertaking() {
    let (repository, came) = port(|connection| async move { drop(connection) }).await;
    let remote = at(&repository);
    for n in 0..TAGS {
        let name = Name::from(format!("v{n}").parse::<Tag>().unwrap());
        assert!(remote.head_manifest(&name).await.is_err());
    }
    // And the simplest question once, before it rests.
    assert_eq!(came.load(Ordering::Relaxed), ATTEMPTS + 1);
}

#[tokio::test]
async fn a_registry_that_takes_connections_and_never_answers_costs_two_time_outs() {
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (repository, came) = port(move |connection| {
        held.lock().unwrap().push(connection);
        std::future::ready(())
    })
    .await;
    tokio::time::pause();
    let begun = Instant::now();
    look_up_all(&at(&repository)).await;
    let took = begun.elapsed().as_secs();
    assert!((120..180).contains(&took), "{took} s");
    assert_eq!(came.load(Ordering::Relaxed), AT_ONCE + 2);
}

#[tokio::test]
async fn one_question_that_is_too_much_does_not_cost_the_others() {
    // Whoever asks for one of the tags loses the connection; everything else is answered.
    let server = server::Server::start(|_| server::reply(404, &[("connection", "close")], "")).await;
    let (repository, _) = port({
        let address = server.address;
        move |mut client| async move {
            let mut head = vec![0; 4096];
            let read = client.read(&mut head).await.unwrap();
            if String::from_utf8_lossy(&head[..read]).contains("/manifests/v7") {
                return;
            }
            let mut registry = TcpStream::connect(address).await.unwrap();
            registry.write_all(&head[..read]).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(100), tokio::io::copy(&mut registry, &mut client)).await;
        }
    })
    .await;
    let remote = at(&repository);
    for n in 0..12 {
        let name = Name::from(format!("v{n}").parse::<Tag>().unwrap());
        assert_eq!(remote.head_manifest(&name).await.is_err(), n == 7, "v{n}");
    }
    assert!(!remote.own.endpoint.health.rests());
}

#[tokio::test(start_paused = true)]
async fn a_rest_ends() {
    let health = Arc::new(Health::default());
    health.found_down(&crate::Error::failed("nothing came"), Instant::now()).await;
    let asked = AtomicUsize::new(0);
    let ask = |answers: bool| {
        let asked = &asked;
        Retry::default().run(&health, move || async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let trouble = crate::registry::retry::Trouble::passing(crate::Error::failed("nothing came"));
            if answers { Ok(()) } else { Err(trouble.unheard(Instant::now())) }
        })
    };
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(ask(false).await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one attempt decides");
    assert!(health.rests());
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(ask(true).await.is_ok());
}
