//! The server is blind: nothing of what two machines keep in their folders is in its directory, in its logs, or in
//! anything they say to it. And whoever breaks that is caught.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "blind/inflate.rs"]
mod inflate;
#[path = "blind/search.rs"]
mod search;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Request, Response};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use search::Needles;
use syncagent_client::engine::{Engine, EngineConfig, Hint};
use syncagent_client::folder::disk::NativeDisk;
use syncagent_client::home::Home;
use syncagent_client::index::Index;
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body, HttpRemote, Transport, register};
use syncagent_client::work::Work;
use syncagent_protocol::api::{Event, RegisterRequest, register_message};
use syncagent_server::{App, Entropy, ServerConfig};
use syncagent_testkit::transport::RouterTransport;
use syncagent_testkit::world::SystemClock;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::{OsRandom, Random};

// ------------------------------------------------------------------------------------------- what is overheard

/// Bytes that several write and one reads.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }

    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl std::io::Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Tape::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that the server and what it is built on log, in this whole process.
fn server_log() -> &'static Tape {
    static LOG: OnceLock<Tape> = OnceLock::new();
    LOG.get_or_init(|| {
        use tracing_subscriber::layer::SubscriberExt as _;
        let tape = Tape::default();
        let writer = tape.clone();
        let targets = tracing_subscriber::filter::Targets::new()
            .with_default(tracing_subscriber::filter::LevelFilter::DEBUG)
            // A machine may tell its own user what it does.
            .with_target("syncagent_client", tracing_subscriber::filter::LevelFilter::OFF)
            .with_target("syncagent_sync", tracing_subscriber::filter::LevelFilter::OFF);
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(targets).with(layer);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        tracing::debug!(target: "syncagent_server", "the log is heard");
        tape
    })
}

/// Writes down every request and answer, heads and bodies.
struct Recorder {
    inner: Box<dyn Transport>,
    tape: Tape,
}

fn head(first: impl Display, headers: &HeaderMap) -> Vec<u8> {
    let mut text = format!("\n{first}\n").into_bytes();
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text.push(b'\n');
    text
}

impl Transport for Recorder {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        let line = format!("{} {}", request.method(), request.uri());
        let mut said = head(line, request.headers());
        said.extend_from_slice(request.body());
        self.tape.write(&said);
        async move {
            let (parts, body) = self.inner.send(request).await?.into_parts();
            // Whole, so that what two answers say at once does not get mixed.
            let pieces: Vec<Bytes> = body.try_collect().await?;
            let mut said = head(parts.status, &parts.headers);
            pieces
                .iter()
                .for_each(|piece| said.extend_from_slice(piece));
            self.tape.write(&said);
            let body = futures_util::stream::iter(pieces.into_iter().map(Ok)).boxed();
            Ok(Response::from_parts(parts, body))
        }
        .boxed()
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        let token = token.to_owned();
        async move { self.inner.events(&token).await }.boxed()
    }
}

// --------------------------------------------------------------------------------------------------- the world

/// A server as it is run, on a directory, and the key that only the machines have.
struct World {
    dir: tempfile::TempDir,
    app: App,
    key: VaultKey,
    tape: Tape,
    random: Arc<dyn Random>,
}

struct Machine {
    name: String,
    folder: PathBuf,
    engine: Engine,
}

impl World {
    fn new() -> Self {
        server_log();
        let dir = tempfile::tempdir().unwrap();
        let random: Arc<dyn Random> = Arc::new(OsRandom::default());
        let for_server = Arc::clone(&random);
        let entropy: Entropy = Arc::new(move |out: &mut [u8]| for_server.fill(out));
        let app = syncagent_server::open(&ServerConfig {
            places: (&dir.path().join("server")).into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Arc::new(SystemClock),
            entropy,
        })
        .unwrap();
        let key = VaultKey::generate(&*random);
        Self {
            dir,
            app,
            key,
            tape: Tape::default(),
            random,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn recorder(&self) -> Recorder {
        Recorder {
            inner: Box::new(RouterTransport::new(self.app.router())),
            tape: self.tape.clone(),
        }
    }

    /// A machine that calls itself `name` and reaches the server by `transport`.
    async fn machine(&self, name: &str, transport: Arc<dyn Transport>) -> Machine {
        let dir = tempfile::Builder::new()
            .tempdir_in(self.dir.path())
            .unwrap()
            .keep();
        let (home, folder) = (Home::at(dir.join("home")), dir.join("folder"));
        fs::create_dir_all(&folder).unwrap();
        let mut credentials = home.credentials_or_new(&*self.random).unwrap();
        let invitation = self.app.invite().await.unwrap();
        let message = register_message(&invitation.hash(), name);
        let request = RegisterRequest {
            invitation: invitation.to_text(),
            public_key: HEXLOWER.encode(credentials.machine.public()),
            name: name.to_owned(),
            platform: "linux".to_owned(),
            signature: HEXLOWER.encode(&credentials.machine.sign(&message)),
        };
        let token = register(&*transport, &request).await.unwrap().token;
        credentials.token = Some(zeroize::Zeroizing::new(token.clone()));
        credentials.vault = Some(self.key.vault());
        credentials.check_value = Some(self.key.check_value().unwrap());
        credentials.genesis = Some(Genesis::default());
        home.save_credentials(&credentials).unwrap();
        let engine = Engine::open(EngineConfig {
            key: self.key.duplicate(),
            credentials,
            name: name.to_owned(),
            platform: "linux".to_owned(),
            index: Index::open(&home.state_path()).unwrap(),
            disk: Arc::new(NativeDisk::open(&folder).unwrap()),
            remote: Arc::new(HttpRemote::new(transport, self.key.vault(), &token)),
            home: Some(home),
            work: Work::Pool,
            clock: Arc::new(SystemClock),
            random: Arc::clone(&self.random),
        })
        .unwrap();
        Machine {
            name: name.to_owned(),
            folder,
            engine,
        }
    }

    /// What the needles find in everything the server has, has logged, or was told.
    fn search(&self, needles: &Needles) -> BTreeMap<&'static str, Vec<String>> {
        let recording = needles.find(&self.tape.take(), "the recording");
        let log = needles.find(&server_log().take(), "the server's log");
        let mut directory = Vec::new();
        let mut files = 0;
        walk(&self.data(), &mut |path| {
            files += 1;
            let place = path
                .strip_prefix(self.dir.path())
                .unwrap()
                .display()
                .to_string();
            directory.extend(needles.find(place.as_bytes(), "a path of the server's"));
            directory.extend(needles.find(&fs::read(path).unwrap(), &place));
        });
        assert!(files > 2, "the server keeps its data elsewhere");
        let database = rows(&self.data().join("syncagent.db"), needles);
        BTreeMap::from([
            ("recording", recording),
            ("log", log),
            ("directory", directory),
            ("database", database),
        ])
    }
}

fn walk(dir: &Path, look: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), look);
        } else {
            look(&entry.path());
        }
    }
}

/// SQLite packs numbers and breaks long values over pages, so each value is looked at by itself, too.
fn rows(path: &Path, needles: &Needles) -> Vec<String> {
    use rusqlite::types::ValueRef;
    let database = rusqlite::Connection::open(path).unwrap();
    let mut tables = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(tables.len() > 2, "{tables:?}");
    let mut found = Vec::new();
    let mut values = 0;
    for table in tables {
        let mut statement = database
            .prepare(&format!("SELECT * FROM \"{table}\""))
            .unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                values += 1;
                let place = format!("column {column} of {table}");
                match row.get_ref(column).unwrap() {
                    ValueRef::Integer(value) => {
                        found.extend(
                            needles
                                .number(value)
                                .map(|what| format!("{what}, a number in {place}")),
                        );
                    }
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        found.extend(needles.find(bytes, &place))
                    }
                    ValueRef::Null | ValueRef::Real(_) => {}
                }
            }
        }
    }
    assert!(values > 5, "the database is empty");
    found
}

async fn settle(machines: &mut [Machine]) {
    for _ in 0..3 {
        for machine in &mut *machines {
            let outcome = machine.engine.pass(Hint::Everything).await.unwrap();
            assert_eq!(outcome.errors, [], "{}", machine.name);
        }
    }
}

// ------------------------------------------------------------------------------------------------ the canaries

/// Makes names and contents that stand nowhere else, and remembers them.
struct Canaries {
    random: ChaCha8Rng,
    needles: Needles,
    /// Whether contents were made of these before; a name may be on the way more than once.
    paths: Vec<String>,
}

impl Canaries {
    fn new() -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(rand::random()),
            needles: Needles::new(),
            paths: Vec::new(),
        }
    }

    fn letters(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| char::from(self.random.random_range(b'a'..=b'z')))
            .collect()
    }

    /// A name with what must be escaped somewhere: a space, an umlaut, an ampersand.
    fn name(&mut self, kind: &str) -> String {
        let core = self.letters(20);
        let name = format!("{core} ü&{kind}");
        self.needles
            .text(&core, &format!("the middle of the {kind}'s name {name}"));
        self.needles
            .text(&name, &format!("the {kind}'s name {name}"));
        name
    }

    /// A path that is in use from now on.
    fn path(&mut self, path: &str) {
        self.paths.push(path.to_owned());
        self.needles.text(path, &format!("the path {path}"));
        self.needles
            .text(&format!("/{path}"), &format!("the path /{path}"));
    }

    /// What must not be told of a content.
    fn content(&mut self, content: &[u8], what: &str) {
        self.needles.hashes(content, what);
        for at in [0, content.len() / 2, content.len().saturating_sub(40)] {
            let part = &content[at..content.len().min(at + 40)];
            if part.len() >= 16 {
                self.needles.secret(part, &format!("{what}, from {at}"));
            }
        }
        if content.len() > 1 << 20 {
            self.needles
                .size(content.len() as u64, &format!("{what}, size"));
        }
    }

    fn random(&mut self, size: usize, what: &str) -> Vec<u8> {
        let mut content = vec![0; size];
        self.random.fill(&mut content[..]);
        self.content(&content, what);
        content
    }

    /// Prose that compresses well, with a canary in every line.
    fn text(&mut self, size: usize, what: &str) -> Vec<u8> {
        let core = self.letters(24);
        self.needles.text(&core, &format!("{what}, in every line"));
        let mut content = Vec::new();
        for line in 0.. {
            if content.len() >= size {
                break;
            }
            content
                .extend_from_slice(format!("line {line} of many speaks of {core}.\n").as_bytes());
        }
        content.truncate(size);
        self.content(&content, what);
        content
    }
}

/// Writes a file with a name of its own.
fn write(
    canaries: &mut Canaries,
    folder: &Path,
    below: &str,
    kind: &str,
    content: &[u8],
) -> String {
    let name = canaries.name(kind);
    let path = if below.is_empty() {
        name
    } else {
        format!("{below}/{name}")
    };
    canaries.path(&path);
    fs::write(folder.join(&path), content).unwrap();
    path
}

/// A content with a size that is in nothing else, a prime or close to one.
const BIG: usize = 30_402_457;
const MIDDLE: usize = 6_972_593;
const PROSE: usize = 3_021_377;
const EDITED: usize = 6_972_593 + 1_257_787;

/// Everything that two people do with a folder, made of canaries alone.
async fn live(machines: &mut [Machine], canaries: &mut Canaries) {
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    let dir = canaries.name("directory");
    let inner = format!("{dir}/{}", canaries.name("directory"));
    canaries.path(&inner);
    fs::create_dir_all(a.join(&inner)).unwrap();
    let mut small = Vec::new();
    for (size, below) in [
        (16, ""),
        (100, &dir),
        (1_999, &inner),
        (2_048, &inner),
        (5_003, &dir),
        (70_001, &inner),
    ] {
        let content = canaries.random(size, &format!("a file of {size} bytes"));
        small.push(write(canaries, &a, below, "small file", &content));
    }
    let note = canaries.text(1_500, "a short text");
    write(canaries, &a, &dir, "note", &note);
    let prose = canaries.text(PROSE, "a long text");
    write(canaries, &a, &inner, "prose", &prose);
    let middle = canaries.random(MIDDLE, "a file of several chunks");
    let middle_path = write(canaries, &a, &dir, "photo", &middle);
    let big = canaries.random(BIG, "a file with list chunks");
    let big_path = write(canaries, &a, "", "film", &big);
    let target = format!(
        "{}/{}",
        canaries.name("link target"),
        canaries.name("link target")
    );
    canaries.path(&target);
    let link = canaries.name("link");
    std::os::unix::fs::symlink(&target, a.join(&link)).unwrap();
    settle(machines).await;
    assert_eq!(fs::read(b.join(&big_path)).unwrap(), big);
    assert_eq!(fs::read_link(b.join(&link)).unwrap(), Path::new(&target));

    // Edited, in the middle and at the end.
    let mut edited = middle;
    edited.extend_from_slice(&canaries.random(EDITED - MIDDLE, "what was appended"));
    let patch = canaries.random(64, "what was put in place");
    edited[1_000_000..1_000_064].copy_from_slice(&patch);
    canaries.content(&edited, "the edited file");
    fs::write(b.join(&middle_path), &edited).unwrap();
    let content = canaries.random(1_234, "a small file's new content");
    fs::write(a.join(&small[1]), &content).unwrap();
    settle(machines).await;
    assert_eq!(fs::read(a.join(&middle_path)).unwrap(), edited);

    // Renamed and moved, a directory with all that is in it.
    let new_dir = canaries.name("new directory");
    fs::rename(b.join(&dir), b.join(&new_dir)).unwrap();
    for path in canaries.paths.clone() {
        if let Some(rest) = path.strip_prefix(&dir) {
            canaries.path(&format!("{new_dir}{rest}"));
        }
    }
    let new_film = canaries.name("new film");
    fs::rename(a.join(&big_path), a.join(&new_film)).unwrap();
    settle(machines).await;
    assert!(a.join(&new_dir).is_dir() && b.join(&new_film).is_file());

    // Both at once, and deleted.
    let both = [
        canaries.random(900, "one edit of two"),
        canaries.random(901, "the other edit"),
    ];
    fs::write(a.join(&small[0]), &both[0]).unwrap();
    fs::write(b.join(&small[0]), &both[1]).unwrap();
    fs::remove_file(a.join(&new_film)).unwrap();
    fs::remove_dir_all(b.join(&new_dir)).unwrap();
    settle(machines).await;
    assert!(!b.join(&new_film).exists() && !a.join(&new_dir).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_what_the_server_has_or_hears() {
    let world = World::new();
    let mut canaries = Canaries::new();
    let mut machines = Vec::new();
    for name in ["laptop", "desktop"] {
        machines.push(world.machine(name, Arc::new(world.recorder())).await);
    }
    live(&mut machines, &mut canaries).await;
    assert!(canaries.needles.len() > 4_000, "{}", canaries.needles.len());
    // Up from one, down to the other, and the server has it: else the search looked in the wrong place.
    assert!(world.tape.take().len() > 2 * BIG);
    let mut kept = 0;
    walk(&world.data(), &mut |path| {
        kept += fs::metadata(path).unwrap().len()
    });
    assert!(kept > (BIG + EDITED) as u64, "{kept}");
    let log = String::from_utf8_lossy(&server_log().take()).into_owned();
    assert!(log.contains("the log is heard"));
    for (place, found) in world.search(&canaries.needles) {
        assert_eq!(found, Vec::<String>::new(), "{place}");
    }
}

// -------------------------------------------------------------------------------------------- who leaks is caught

/// How a careless client would say something.
#[derive(Clone)]
enum Leak {
    Header(&'static str, String),
    Query(String),
    Body(Vec<u8>),
}

/// A client's transport that says one thing too much.
struct Leaky {
    inner: Recorder,
    leak: Leak,
}

impl Transport for Leaky {
    fn send(
        &self,
        mut request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        match &self.leak {
            Leak::Header(name, value) => {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            Leak::Query(value) => {
                let sign = if request.uri().query().is_some() {
                    '&'
                } else {
                    '?'
                };
                *request.uri_mut() = format!("{}{sign}etag={value}", request.uri())
                    .parse()
                    .unwrap();
            }
            Leak::Body(extra) => {
                let body = [request.body().as_ref(), extra].concat();
                *request.body_mut() = body.into();
            }
        }
        self.inner.send(request)
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        let token = token.to_owned();
        async move { self.inner.events(&token).await }.boxed()
    }
}

/// One file on a machine that leaks, and what is found of it.
struct Caught(BTreeMap<&'static str, Vec<String>>);

impl Caught {
    fn assert(&self, place: &str, what: &str) {
        let found = &self.0[place];
        assert!(
            found.iter().any(|found| found.contains(what)),
            "no {what} in the {place}: {:?}",
            self.0
        );
    }
}

const LEAKED: usize = 2_976_221;

fn secret_file(canaries: &mut Canaries) -> (String, Vec<u8>) {
    let name = canaries.name("file");
    let content = canaries.random(LEAKED, "the file");
    (name, content)
}

async fn caught(leak: impl FnOnce(&str, &[u8]) -> Leak) -> Caught {
    let world = World::new();
    let mut canaries = Canaries::new();
    let (name, content) = secret_file(&mut canaries);
    let honest: Arc<dyn Transport> = Arc::new(world.recorder());
    let mut machine = world.machine("laptop", honest).await;
    fs::write(machine.folder.join(&name), &content).unwrap();
    machine.engine.pass(Hint::Everything).await.unwrap();
    for (place, found) in world.search(&canaries.needles) {
        assert_eq!(
            found,
            Vec::<String>::new(),
            "{place}, before anything leaks"
        );
    }
    let leaky = Leaky {
        inner: world.recorder(),
        leak: leak(&name, &content),
    };
    let remote = HttpRemote::new(
        Arc::new(leaky),
        world.key.vault(),
        "no token: the server need not like it",
    );
    let _ = syncagent_client::remote::Remote::commits(&remote, 0).await;
    Caught(world.search(&canaries.needles))
}

#[tokio::test]
async fn a_name_in_a_header_is_caught() {
    let caught =
        caught(|name, _| Leak::Header("x-file", BASE64.encode(format!("~/{name}").as_bytes())))
            .await;
    caught.assert("recording", "base64");
    caught.assert("recording", "the file's name");
}

#[tokio::test]
async fn a_hash_in_an_address_is_caught() {
    let hash = |_: &str, content: &[u8]| Leak::Query(blake3::hash(content).to_hex().to_string());
    caught(hash)
        .await
        .assert("recording", "the file, BLAKE3, hex");
    let hash =
        |_: &str, content: &[u8]| Leak::Body(syncagent_protocol::sha256(&[content]).to_vec());
    caught(hash)
        .await
        .assert("recording", "the file, SHA-256, raw");
}

#[tokio::test]
async fn a_size_is_caught() {
    let decimal = |_: &str, content: &[u8]| Leak::Header("x-length", content.len().to_string());
    caught(decimal)
        .await
        .assert("recording", "the file, size, as text");
    let binary =
        |_: &str, content: &[u8]| Leak::Body((content.len() as u64).to_be_bytes().to_vec());
    caught(binary)
        .await
        .assert("recording", "the file, size, u64 big-endian");
}

#[tokio::test]
async fn what_is_compressed_is_caught() {
    let squeezed = |name: &str, _: &[u8]| {
        Leak::Body(zstd::bulk::compress(name.repeat(9).as_bytes(), 3).unwrap())
    };
    let caught = caught(squeezed).await;
    caught.assert("recording", "the file's name");
    caught.assert("recording", "decompressed");

    // Made by Python's gzip: with fixed codes, and with a table of codes.
    let short = "1f8b08000000000002032bc94855282ccd4cce56482aca2fcf53484ecc4b2caad45128c12a8e43985aca014c3b563e8d0000\
        00";
    let longer = "1f8b0800000000000203558e0d0e80200885afc201ba14954b96c3a5b6d6ed8b1f9b4d457c3c3e994bbe1838cf79bd015302\
        6cb28f93961d2af1563d5f700b52d15b430c582aa0898ce51e9d2d06c3bdabd3952c05728cf1a90d08f71a8958edfdd88757\
        a4e47c57bc158524ba39ba3a8efcabbc74cffe98af419e9312759c074be93a3a2b010000";
    let mut needles = Needles::new();
    needles.secret(b"canary, the quick", "a bird");
    for stream in [short, longer] {
        let hay = [
            b"before".as_slice(),
            &HEXLOWER.decode(stream.as_bytes()).unwrap(),
            b"after",
        ]
        .concat();
        let found = needles.find(&hay, "a stream");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("decompressed at 6"), "{found:?}");
    }
}

#[tokio::test]
async fn what_reaches_the_directory_is_caught() {
    // A machine's name is the one text that the server is told. A client that leaks through it leaks into the database.
    let world = World::new();
    let mut canaries = Canaries::new();
    let (name, content) = secret_file(&mut canaries);
    let leaks = [
        (BASE64URL_NOPAD.encode(&name.as_bytes()[..20]), "base64"),
        (
            blake3::hash(&content).to_hex()[..32].to_owned(),
            "half of BLAKE3, hex",
        ),
        (format!("size_{}", content.len()), "size, as text"),
    ];
    for (leak, _) in &leaks {
        world.machine(leak, Arc::new(world.recorder())).await;
    }
    let found = Caught(world.search(&canaries.needles));
    for (_, what) in leaks {
        found.assert("database", what);
        found.assert("directory", what);
        found.assert("recording", what);
    }
    // A number in a column is seen as such.
    let database = rusqlite::Connection::open(world.data().join("syncagent.db")).unwrap();
    database
        .execute("CREATE TABLE leak (size INTEGER)", [])
        .unwrap();
    database
        .execute("INSERT INTO leak VALUES (?1)", [LEAKED as i64])
        .unwrap();
    Caught(world.search(&canaries.needles))
        .assert("database", "size, a number in column 0 of leak");
}
