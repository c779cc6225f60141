//! A server on a loopback port that writes whatever bytes it likes, and others that nobody may connect to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sealift::oci::{Descriptor, MediaType};
use sealift::sample::{ImageBuilder, SampleImage};

/// Answers a request; `false` leaves it to the honest part.
pub type Respond = fn(&mut Request<'_>) -> bool;

/// A request, and where its answer goes.
pub struct Request<'a> {
    pub method: String,
    /// With its query.
    pub path: String,
    pub world: &'a World,
    out: &'a TcpStream,
}

/// What everybody who answers knows.
pub struct World {
    pub image: SampleImage,
    pub host: String,
    /// A host that nobody may ask.
    pub other: String,
}

/// A running server.
pub struct Hostile {
    world: Arc<World>,
    others: Arc<AtomicUsize>,
}

impl Hostile {
    /// Serves `team/app:1`, but for what `respond` answers. Its threads end with the test.
    pub fn start(respond: Respond) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let others = Arc::new(AtomicUsize::new(0));
        let other = forbidden(Arc::clone(&others));
        let foreign = format!("http://{other}/foreign");
        let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(20_000, 1);
        let image = image.foreign_layer(&foreign, 1_000, 2).referrer("application/spdx+json", b"{}").build().unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let world = Arc::new(World { image, host, other });
        let shared = Arc::clone(&world);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &world, respond));
            }
        });
        Hostile { world, others }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> &str {
        &self.world.host
    }

    /// How many connections the others have seen.
    pub fn others(&self) -> usize {
        self.others.load(Ordering::SeqCst)
    }
}

/// A port that counts who comes.
fn forbidden(count: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst)));
    host
}

/// Requests of one connection, none of which has a body.
fn serve(stream: &TcpStream, world: &World, respond: Respond) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let mut request = Request { method, path, world, out: stream };
        if !respond(&mut request) {
            request.honest();
        }
    }
}

impl Request<'_> {
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The path without its query has this in it.
    pub fn has(&self, part: &str) -> bool {
        self.path.split('?').next().is_some_and(|path| path.contains(part))
    }

    /// Writes these bytes, whatever they are; whether anybody still listens.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.out.write_all(bytes).is_ok()
    }

    /// Writes these bytes again and again, for as long as anybody listens, then goes away.
    pub fn forever(&mut self, bytes: &[u8]) -> bool {
        while self.raw(bytes) {}
        true
    }

    /// Says no more.
    pub fn close(&mut self) -> bool {
        let _ = self.out.shutdown(std::net::Shutdown::Both);
        true
    }

    /// An answer with these headers, and a right length.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> bool {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{lines}\r\n", body.len()).as_bytes());
        if !self.is_head() {
            self.raw(body);
        }
        true
    }

    /// A manifest with its digest.
    pub fn manifest(&mut self, media_type: &MediaType, bytes: &[u8]) -> bool {
        let digest = Descriptor::of(media_type.clone(), bytes).digest.to_string();
        self.answer(200, &[("content-type", media_type.as_str()), ("docker-content-digest", &digest)], bytes)
    }

    /// The referrers API.
    pub fn referrers(&mut self, list: &[Descriptor], next: Option<&str>) -> bool {
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": list});
        let link = next.map(|next| format!("<{next}>; rel=\"next\""));
        let kind = MediaType::OCI_INDEX.to_string();
        let headers: Vec<(&str, &str)> =
            [("content-type", kind.as_str())].into_iter().chain(link.as_deref().map(|link| ("link", link))).collect();
        self.answer(200, &headers, index.to_string().as_bytes())
    }

    pub fn tags(&mut self, tags: &[&str], next: Option<&str>) -> bool {
        let link = next.map(|next| format!("<{next}>; rel=\"next\""));
        let headers: Vec<(&str, &str)> = link.as_deref().map(|link| ("link", link)).into_iter().collect();
        self.answer(200, &headers, serde_json::json!({ "tags": tags }).to_string().as_bytes())
    }

    /// What a good registry answers.
    fn honest(&mut self) {
        let image = &self.world.image;
        let name = self.path.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
        let named =
            |(blob, _): &&(Descriptor, Bytes)| blob.digest.to_string() == name || (*blob == image.root && name == "1");
        let found = image.contents.iter().find(named).cloned();
        if self.has("/referrers/") {
            let subject = name.parse().unwrap();
            let list = self.world.image.referrers(&subject);
            self.referrers(&list, None);
        } else if self.has("/tags/list") {
            self.tags(&["1"], None);
        } else if let Some((descriptor, bytes)) = found {
            self.manifest(&descriptor.media_type, &bytes);
        } else {
            self.answer(404, &[], b"");
        }
    }
}
