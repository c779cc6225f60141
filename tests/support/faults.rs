//! [`Faults`]: a bad line before a registry. A proxy on a TCP port of its own that passes everything on, but for what it was
//! told to do to some of the requests, and counts what passes.
//!
//! It reads HTTP as far as it needs to: one request for each connection (`Connection: close`), so that a fault hits one
//! request and no other.

mod head;
mod pass;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Asked;

/// What is done to one request or its answer. Positions are bytes of a body, from 0.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer ends in the middle of its head.
    CutHead,
    /// The answer's body ends after so many bytes, with FIN.
    Cut(u64),
    /// The same with RST.
    Reset(u64),
    /// The answer's body stands still for a moment after so many bytes, then goes on.
    Pause(u64),
    /// The answer comes at 10 KiB a second.
    Slow,
    /// The registry is not asked: this status, with `Retry-After` where there is one.
    Answer(u16, Option<u32>),
    /// The same with a date in `Retry-After`, so many seconds from then on.
    AnswerUntil(u16, i64),
    /// The registry is not asked: this status, with a body.
    Refuse(u16, &'static str),
    /// The answer's body stands still for ever after so many bytes; the connection stays.
    Stall(u64),
    /// The registry gets the request, and its answer never comes; the connection stays.
    Silence,
    /// The registry never sees `Range`.
    DropRange,
    /// A bit of this byte of the answer's body is another.
    Flip(u64),
    /// The token that was shown is good no more. Only with [`Faults::with_tokens`].
    Expire,
    /// HEAD names another digest.
    LieDigest,
    /// HEAD names another length.
    LieLength,
    /// The request's body ends after so many bytes, with FIN on both sides.
    CutUpload(u64),
    /// The same with RST.
    ResetUpload(u64),
    /// A bit of this byte of the request's body is another.
    FlipUpload(u64),
    /// The registry gets the request's body twice over, as one.
    DoubleUpload,
    /// The registry gets the request twice; the second answer counts.
    Repeat,
    /// The registry gets the request, and its answer is lost.
    LoseAnswer,
}

/// Blobs that are read.
pub fn blob(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/blobs/")
}

/// Manifests that are read.
pub fn manifest(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/manifests/")
}

/// Manifests that are looked up.
pub fn head(asked: &Asked) -> bool {
    asked.method == "HEAD" && asked.path.contains("/manifests/")
}

/// Sessions of uploads that are opened.
pub fn session(asked: &Asked) -> bool {
    asked.method == "POST"
}

/// Uploads of blobs.
pub fn upload(asked: &Asked) -> bool {
    asked.method == "PUT" && asked.path.contains("/uploads/")
}

/// Manifests that are put.
pub fn put(asked: &Asked) -> bool {
    asked.method == "PUT" && asked.path.contains("/manifests/")
}

/// Everything.
pub fn any(_: &Asked) -> bool {
    true
}

/// A fault for the next `times` requests that fit.
struct Rule {
    which: Box<dyn Fn(&Asked) -> bool + Send>,
    times: usize,
    fault: Fault,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Passed {
    pub asked: Asked,
    /// Bytes of its body that went to the registry.
    pub up: u64,
    /// Bytes of the answer's body that went to the client.
    pub down: u64,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// A running proxy; stops when dropped.
pub struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    upstream: String,
    /// The token that is good now, where tokens are wanted.
    token: Option<Mutex<Token>>,
    rules: Mutex<Vec<Rule>>,
    passed: Mutex<Vec<Arc<Entry>>>,
}

#[derive(Default)]
struct Token {
    number: u64,
    /// Whether it has opened the door once: before that it does not expire.
    used: bool,
}

/// A request on its way.
struct Entry {
    asked: Asked,
    fault: Option<Fault>,
    up: AtomicU64,
    down: AtomicU64,
    /// Its body, where that is needed again.
    kept: Mutex<Vec<u8>>,
}

impl Faults {
    /// Stands before `upstream`, `127.0.0.1:<port>`, and does nothing to what passes.
    pub async fn start(upstream: &str) -> Self {
        Self::start_as(upstream, None).await
    }

    /// The same, and wants tokens, which it hands out itself.
    pub async fn with_tokens(upstream: &str) -> Self {
        Self::start_as(upstream, Some(Mutex::default())).await
    }

    async fn start_as(upstream: &str, token: Option<Mutex<Token>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rules, passed) = Default::default();
        let shared = Arc::new(Shared { address, upstream: upstream.to_owned(), token, rules, passed });
        let task = tokio::spawn(pass::accept(listener, Arc::clone(&shared)));
        Faults { address, shared, task }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Does `fault` to the next `times` requests for which `which` holds, once what was said before is used up.
    pub fn on(&self, which: impl Fn(&Asked) -> bool + Send + 'static, times: usize, fault: Fault) {
        self.shared.rules.lock().unwrap().push(Rule { which: Box::new(which), times, fault });
    }

    /// Does nothing more, and forgets what has passed; whether everything that it was told to do was done. The next client
    /// is a new one.
    pub fn heal(&self) -> bool {
        if let Some(token) = &self.shared.token {
            token.lock().unwrap().used = false;
        }
        self.shared.passed.lock().unwrap().clear();
        self.shared.rules.lock().unwrap().drain(..).all(|rule| rule.times == 0)
    }

    /// What has passed so far, in the order in which it was asked.
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.passed.lock().unwrap().iter().map(|entry| entry.passed()).collect()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Whether this `Authorization` opens the door.
    fn knows(&self, shown: Option<&str>) -> bool {
        self.token.is_none() || shown == Some(&format!("Bearer {}", self.good_token()))
    }

    /// What is done to this request, which was let in.
    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let used = self.token.as_ref().is_some_and(|token| std::mem::replace(&mut token.lock().unwrap().used, true));
        let mut rules = self.rules.lock().unwrap();
        let ripe = |rule: &Rule| rule.times > 0 && (used || !matches!(rule.fault, Fault::Expire));
        let rule = rules.iter_mut().find(|rule| ripe(rule) && (rule.which)(asked))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    fn enter(&self, asked: Asked, fault: Option<Fault>) -> Arc<Entry> {
        let (up, down, kept) = Default::default();
        let entry = Arc::new(Entry { asked, fault, up, down, kept });
        self.passed.lock().unwrap().push(Arc::clone(&entry));
        entry
    }

    fn good_token(&self) -> String {
        format!("t{}", self.token.as_ref().unwrap().lock().unwrap().number)
    }

    fn expire(&self) {
        let mut token = self.token.as_ref().unwrap().lock().unwrap();
        *token = Token { number: token.number + 1, used: false };
    }
}

impl Entry {
    fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    fn passed(&self) -> Passed {
        let (up, down) = (self.up.load(Ordering::SeqCst), self.down.load(Ordering::SeqCst));
        Passed { asked: self.asked.clone(), up, down, fault: self.fault.clone() }
    }
}
