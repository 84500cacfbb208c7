//! TLS without anything in front: the certificate of the invitation and no other, or one that an authority vouches for.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use syncagent_protocol::invitation::Invitation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{Machine, Run, World, command, run, until};

const SELF_SIGNED: &[&str] = &["--data", "server", "--tls", "self-signed"];

fn self_signed() -> World {
    let mut world = World::without_server();
    world.start_server_with(SELF_SIGNED, &[]);
    world
}

fn register(machine: &Machine, url: &str, token: &str, more: &[&str]) -> Run {
    let folder = machine.folder.to_string_lossy().into_owned();
    let flags = ["--token", token, "--folder", &folder];
    machine.run(&[&["register", "--server", url], &flags[..], more].concat())
}

/// A machine with the key of a new vault, registered nowhere.
fn with_key(world: &World, name: &str) -> Machine {
    let machine = world.machine(name);
    let recovery = format!("{name}-recovery-code");
    let init = ["init", "--password-file", "password", "--recovery-file"];
    machine.run(&[&init[..], &[&recovery]].concat()).exits(0);
    machine
}

fn pin(token: &str) -> Option<[u8; 32]> {
    token.parse::<Invitation>().unwrap().certificate().copied()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

// ---------------------------------------------------------------------------------------------- the world of TLS

/// Looks at a certificate and minds none.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

async fn connect(address: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("anyone.example").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The certificate (DER) that is shown at an address, and the answer of `/healthz`.
pub(crate) fn shown(address: &str) -> Option<(Vec<u8>, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stream = connect(address).await.ok()?;
        let chain = stream.get_ref().1.peer_certificates()?;
        let certificate = chain.first()?.as_ref().to_vec();
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some((certificate, answer))
    })
}

/// Shows a certificate with whatever key it is given.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Somebody who ends TLS in front of the server and passes on what comes out of it.
struct Middle {
    heard: Arc<AtomicUsize>,
    knocked: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Middle {
    fn start(
        listen: &str,
        to: &str,
        certificate: &CertificateDer<'static>,
        key: &KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let provider = aws_lc_rs::default_provider();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let shows = Shows(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shows));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let [heard, knocked] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let middle = Self {
            heard: Arc::clone(&heard),
            knocked: Arc::clone(&knocked),
            _runtime: runtime,
        };
        let to = to.to_owned();
        let listener = middle._runtime.block_on(TcpListener::bind(listen)).unwrap();
        middle._runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, to) = (acceptor.clone(), to.clone());
                let (heard, knocked) = (Arc::clone(&heard), Arc::clone(&knocked));
                tokio::spawn(async move {
                    let accepted = acceptor.accept(stream).await;
                    knocked.fetch_add(1, Ordering::SeqCst);
                    let Ok(victim) = accepted else { return };
                    let server = connect(&to).await.unwrap();
                    let (mut from_victim, mut to_victim) = tokio::io::split(victim);
                    let (mut from_server, mut to_server) = tokio::io::split(server);
                    let back = async {
                        let _ = tokio::io::copy(&mut from_server, &mut to_victim).await;
                        let _ = to_victim.shutdown().await;
                    };
                    let there = async {
                        let mut buffer = [0; 4096];
                        while let Ok(n @ 1..) = from_victim.read(&mut buffer).await {
                            heard.fetch_add(n, Ordering::SeqCst);
                            let _ = to_server.write_all(&buffer[..n]).await;
                        }
                        let _ = to_server.shutdown().await;
                    };
                    tokio::join!(back, there);
                });
            }
        });
        middle
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    fn knocked(&self) -> usize {
        self.knocked.load(Ordering::SeqCst)
    }
}

fn own_certificate() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    (params.self_signed(&key).unwrap().der().clone(), key)
}

fn free_address() -> String {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// An authority that no system knows.
pub(crate) fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `names` by an authority, and its key, as files.
pub(crate) fn issue(authority: &CertifiedIssuer<'static, KeyPair>, names: &[&str], dir: &Path) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, authority)
        .unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(dir.join("chain.pem"), certificate.pem()).unwrap();
}

pub(crate) const FILES: &[&str] = &[
    "--data",
    "server",
    "--tls-cert",
    "chain.pem",
    "--tls-key",
    "key.pem",
];

// ---------------------------------------------------------------------------------------------- its own certificate

#[test]
fn a_certificate_of_its_own_travels_in_the_invitation() {
    let mut world = self_signed();
    assert!(
        world
            .announced
            .starts_with("listening on https://127.0.0.1:")
    );
    let token = world.invite();
    let (certificate, _) = shown(&world.address()).unwrap();
    assert_eq!(pin(&token), Some(sha256(&certificate)));
    let a = world.first("a");
    a.write("first", "from a");
    a.sync_once().exits(0);
    // The whole way of a second machine, in one command.
    let b = world.machine("b");
    let link = format!("{}#{}", world.url, world.invite());
    let folder = b.folder.to_string_lossy().into_owned();
    let join = ["join", &link, &folder, "--name", "b-machine"];
    b.run(&[&join[..], &["--password-file", "password"]].concat())
        .exits(0);
    assert_eq!(b.read("first").as_deref(), Some("from a"));

    let daemons = [a.start_daemon(), b.start_daemon()];
    for (from, to, name) in [(&a, &b, "second"), (&b, &a, "third")] {
        from.write(name, name);
        // The next look at everything is five minutes away: only the socket tells in time.
        until("a live edit", || (to.read(name)? == name).then_some(()));
    }
    for daemon in daemons {
        assert_eq!(daemon.terminate(), 0);
    }
    for command in [
        &["machines"][..],
        &["verify", "--password-file", "password"],
    ] {
        b.run(command).exits(0);
    }
    // The server is the same one after a restart, with or without its flag repeated for `invite`.
    let address = world.address();
    world.stop_server();
    world.start(&[SELF_SIGNED, &["--listen", &address]].concat(), &[]);
    assert_eq!(shown(&address).unwrap().0, certificate);
    assert_eq!(pin(&world.invite()), Some(sha256(&certificate)));
    a.write("fourth", "after the restart");
    a.sync_once().exits(0);
    b.sync_once().exits(0);
    assert!(b.read("fourth").is_some());
}

#[cfg(unix)]
#[test]
fn the_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = self_signed();
    let mode = |path: &str| {
        let metadata = fs::metadata(world.path(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("server/tls"), 0o700);
    assert_eq!(mode("server/tls/key.pem"), 0o600);
}

#[test]
fn another_certificate_than_the_invitations_is_refused() {
    let world = self_signed();
    let a = with_key(&world, "a");
    let token = world.invite();
    let invitation: Invitation = token.parse().unwrap();
    let wrong = invitation.pinning(Some([7; 32])).to_text();
    let refused = register(&a, &world.url, &wrong, &[]).exits(12);
    assert!(
        refused
            .says("E_CERTIFICATE")
            .stderr
            .contains("nothing was sent")
    );
    let without = token.parse::<Invitation>().unwrap().pinning(None).to_text();
    let refused = register(&a, &world.url, &without, &[]).exits(12);
    assert!(
        refused
            .says("E_CERTIFICATE")
            .stderr
            .contains("do not vouch")
    );
    // Where a certificate is known, nothing goes without it.
    let plain = world.url.replace("https://", "http://");
    let refused = register(&a, &plain, &token, &["--insecure"]).exits(2);
    assert!(refused.says("E_USAGE").stderr.contains("use https"));
    // None of this used the invitation up.
    register(&a, &world.url, &token, &[]).exits(0);
    a.sync_once().exits(0);
}

#[test]
fn a_man_in_the_middle_hears_nothing() {
    let mut world = self_signed();
    let address = world.address();
    let a = world.first("a");
    let daemon = a.start_daemon();
    a.write("before", "it");
    until("the first file is sent", || {
        (a.status()["files"] == 1 && a.status()["state"] == "idle").then_some(())
    });
    world.stop_server();
    let elsewhere = free_address();
    world.start(&[SELF_SIGNED, &["--listen", &elsewhere]].concat(), &[]);
    let (certificate, key) = own_certificate();
    let tls13 = &rustls::version::TLS13;
    let middle = Middle::start(&address, &elsewhere, &certificate, &key, tls13);
    // It does pass on what those say who mind no certificate.
    let (theirs, answer) = shown(&address).unwrap();
    assert!(
        theirs == certificate.as_ref() && answer.contains(" 200 OK"),
        "{answer}"
    );
    let (heard, knocked) = (middle.heard(), middle.knocked());
    assert!(heard > 0);

    a.write("during", "it");
    let status = until("the daemon refuses", || {
        let status = a.status();
        let errors = status["errors"].to_string();
        errors.contains("E_CERTIFICATE").then_some(status)
    });
    assert_eq!(status["state"], "error", "{status}");
    for command in [
        &["machines"][..],
        &["verify", "--password-file", "password"],
    ] {
        a.run(command).exits(12).says("E_CERTIFICATE");
    }
    a.run(&["doctor"]).exits(12);
    let token = world.invite();
    register(&a, &format!("https://{address}"), &token, &[])
        .exits(12)
        .says("E_CERTIFICATE");
    until("somebody to come by", || {
        (middle.knocked() > knocked).then_some(())
    });
    assert_eq!(middle.heard(), heard, "something was said");

    drop(middle);
    world.stop_server();
    world.start(&[SELF_SIGNED, &["--listen", &address]].concat(), &[]);
    until("all is well again", || {
        let status = a.status();
        (status["state"] == "idle" && status["files"] == 2).then_some(())
    });
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn who_shows_the_certificate_must_have_its_key() {
    let mut world = self_signed();
    let address = world.address();
    let a = world.first("a");
    a.sync_once().exits(0);
    let (shown_by_server, _) = shown(&address).unwrap();
    world.stop_server();
    let certificate = CertificateDer::from(shown_by_server);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (_, other_key) = own_certificate();
        let middle = Middle::start(&address, &address, &certificate, &other_key, version);
        let refused = a.sync_once().exits(12).says("E_CERTIFICATE");
        assert!(
            refused.stderr.contains("cannot prove"),
            "{}",
            refused.stderr
        );
        // The one that refused may have ended before the other end knows.
        until("the knock", || (middle.knocked() > 0).then_some(()));
        assert_eq!(middle.heard(), 0);
    }
    // With the key it is the server, as far as TLS is concerned: the test above refuses for the right reason.
    let pem = fs::read_to_string(world.path("server/tls/key.pem")).unwrap();
    let key = KeyPair::from_pem(&pem).unwrap();
    let tls12 = &rustls::version::TLS12;
    world.start(&[SELF_SIGNED, &["--listen", "127.0.0.1:0"]].concat(), &[]);
    let middle = Middle::start(&address, &world.address(), &certificate, &key, tls12);
    a.run(&["doctor"]);
    assert!(middle.heard() > 0);
}

#[test]
fn a_changed_certificate_needs_a_new_invitation() {
    let mut world = self_signed();
    let address = world.address();
    let a = world.first("a");
    a.sync_once().exits(0);
    world.stop_server();
    fs::remove_file(world.path("server/tls/certificate.pem")).unwrap();
    world.start(&[SELF_SIGNED, &["--listen", &address]].concat(), &[]);
    let refused = a.sync_once().exits(12).says("E_CERTIFICATE");
    assert!(
        refused.stderr.contains("new invitation"),
        "{}",
        refused.stderr
    );
    // It knows the rest from before.
    a.run(&["register", "--token", &world.invite()]).exits(0);
    a.write("after", "it");
    a.sync_once().exits(0);
    let machines = a.run(&["machines", "list", "--json"]).exits(0).json();
    assert_eq!(
        machines["machines"].as_array().unwrap().len(),
        1,
        "{machines}"
    );
}

#[test]
fn who_says_nothing_or_nonsense_holds_nobody_up() {
    let mut world = self_signed();
    let silent: Vec<_> = (0..50)
        .map(|_| StdStream::connect(world.address()).unwrap())
        .collect();
    for mut stream in &silent[..25] {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }
    let a = world.first("a");
    a.write("x", "x");
    a.sync_once().exits(0);
    // A client has ten seconds to agree on keys. A server that is to end does not wait for that. Whoever comes later is
    // answered later: the silent one was let in.
    let late = StdStream::connect(world.address()).unwrap();
    shown(&world.address()).unwrap();
    let began = Instant::now();
    assert_eq!(world.stop_server(), 0);
    assert!(began.elapsed() < Duration::from_secs(8));
    drop((silent, late));
}

#[test]
fn a_server_without_tls_is_no_server_with_it() {
    let world = World::new();
    let a = with_key(&world, "a");
    let url = world.url.replace("http://", "https://");
    let lost = register(&a, &url, &world.invite(), &[]).exits(5);
    assert!(lost.says("E_OFFLINE").stderr.contains("does not speak TLS"));
}

// ---------------------------------------------------------------------------------------------- files

#[test]
fn an_authority_counts_where_somebody_said_so() {
    let mut world = World::without_server();
    let [ours, other] = ["ours", "other"].map(authority);
    fs::write(world.path("ca.pem"), ours.pem()).unwrap();
    fs::write(world.path("other-ca.pem"), other.pem()).unwrap();
    issue(&ours, &["127.0.0.1"], world.dir());
    world.start_server_with(FILES, &[]);
    let a = with_key(&world, "a");
    let token = world.invite();
    assert_eq!(pin(&token), None, "an authority vouches for it");
    for (flags, who) in [
        (&[][..], "of this system"),
        (&["--ca", "other-ca.pem"], "other-ca.pem"),
    ] {
        let refused = register(&a, &world.url, &token, flags).exits(12);
        assert!(refused.says("E_CERTIFICATE").stderr.contains(who));
    }
    for file in ["password", "nowhere.pem"] {
        let wrong = register(&a, &world.url, &token, &["--ca", file]).exits(2);
        assert!(wrong.says("E_USAGE").stderr.contains(file));
    }
    // It vouches for names, too.
    let by_name = world.url.replace("127.0.0.1", "localhost");
    let named = register(&a, &by_name, &token, &["--ca", "ca.pem"]).exits(12);
    assert!(named.says("E_CERTIFICATE").stderr.contains("localhost"));
    register(&a, &world.url, &token, &["--ca", "ca.pem"]).exits(0);
    // What was said is kept.
    a.sync_once().exits(0);
    let daemon = a.start_daemon();
    a.write("live", "edit");
    until("it is sent", || (a.status()["files"] == 1).then_some(()));
    daemon.terminate();
    if cfg!(target_os = "linux") {
        let b = world.machine("b");
        let export = a.with_passwords("export-key").exits(0).stdout;
        let passwords = ["--password-file", "password", "--export-password-file"];
        let import = [&["import-key"], &passwords[..], &["export-password"]].concat();
        b.feed(&import, &export).exits(0);
        let folder = b.folder.to_string_lossy().into_owned();
        let token = world.invite();
        let flags = [
            "--server",
            &world.url,
            "--token",
            &token,
            "--folder",
            &folder,
            "--name",
            "b-machine",
        ];
        let register = [&["register"], &flags[..]].concat();
        let sync = ["sync", "--once", "--password-file", "password"];
        for command in [&register[..], &sync] {
            b.run(command).exits(12);
            let mut trusting = b.command(command);
            run(trusting.env("SSL_CERT_FILE", world.path("ca.pem"))).exits(0);
        }
        assert_eq!(b.read("live").as_deref(), Some("edit"));
    }
}

#[test]
fn renewed_files_are_taken_as_they_come() {
    let mut world = World::without_server();
    let ours = authority("ours");
    fs::write(world.path("ca.pem"), ours.pem()).unwrap();
    issue(&ours, &["127.0.0.1"], world.dir());
    world.start_server_with(FILES, &[]);
    let address = world.address();
    let a = with_key(&world, "a");
    register(&a, &world.url, &world.invite(), &["--ca", "ca.pem"]).exits(0);
    let (first, _) = shown(&address).unwrap();
    // Half of a renewal: the key is still the old one.
    let renewed = world.path("renewed");
    fs::create_dir(&renewed).unwrap();
    issue(&ours, &["127.0.0.1", "localhost"], &renewed);
    fs::rename(renewed.join("chain.pem"), world.path("chain.pem")).unwrap();
    assert_eq!(shown(&address).unwrap().0, first);
    fs::rename(renewed.join("key.pem"), world.path("key.pem")).unwrap();
    let (second, _) = shown(&address).unwrap();
    assert_ne!(second, first);
    assert_eq!(
        CertificateDer::from_pem_file(world.path("chain.pem"))
            .unwrap()
            .as_ref(),
        second
    );
    a.sync_once().exits(0);
}

#[test]
fn a_certificate_in_files_that_vouches_for_itself_is_named_too() {
    let mut world = World::without_server();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(world.path("key.pem"), key.serialize_pem()).unwrap();
    fs::write(world.path("chain.pem"), certificate.pem()).unwrap();
    world.start_server_with(FILES, &[]);
    assert_eq!(pin(&world.invite()), Some(sha256(certificate.der())));
    let a = world.first("a");
    a.sync_once().exits(0);
    // What the server that runs does counts, until another one does something else.
    world.stop_server();
    world.start_server("127.0.0.1:0");
    assert_eq!(pin(&world.invite()), None);
}

// ---------------------------------------------------------------------------------------------- settings

#[test]
fn an_invitation_may_come_before_the_server() {
    let mut world = World::without_server();
    fs::create_dir(world.path("server")).unwrap();
    fs::write(
        world.path("server/config.toml"),
        "tls = \"self-signed\"\ntls_name = \"cloud.example.org, 192.0.2.7\"\n",
    )
    .unwrap();
    let token = world.invite();
    let a = with_key(&world, "a");
    world.start_server("127.0.0.1:0");
    let (certificate, _) = shown(&world.address()).unwrap();
    assert_eq!(pin(&token), Some(sha256(&certificate)));
    let has = |what: &[u8]| certificate.windows(what.len()).any(|part| part == what);
    assert!(has(b"cloud.example.org") && has(&[192, 0, 2, 7]));
    register(&a, &world.url, &token, &[]).exits(0);
    // A flag comes before the file.
    world.stop_server();
    world.start(
        &[
            "--data",
            "server",
            "--listen",
            "127.0.0.1:0",
            "--tls",
            "off",
        ],
        &[],
    );
    assert!(world.url.starts_with("http://"));
}

#[test]
fn a_slip_with_certificates_is_named() {
    let world = World::without_server();
    let ours = authority("ours");
    issue(&ours, &["127.0.0.1"], world.dir());
    let (_, other_key) = own_certificate();
    fs::write(world.path("other-key.pem"), other_key.serialize_pem()).unwrap();
    let server = |flags: &[&str]| {
        let place = ["server", "--data", "server", "--listen", "127.0.0.1:0"];
        run(command(world.dir()).args(place).args(flags))
    };
    for (flags, exit, code, hint) in [
        (&["--tls-cert", "chain.pem"][..], 2, "E_USAGE", "tls_key"),
        (
            &["--tls-key", "key.pem", "--tls", "self-signed"],
            2,
            "E_USAGE",
            "either self-signed or in files",
        ),
        (
            &["--tls-cert", "chain.pem", "--tls-key", "other-key.pem"],
            2,
            "E_USAGE",
            "other-key.pem",
        ),
        (
            &["--tls-cert", "key.pem", "--tls-key", "key.pem"],
            2,
            "E_USAGE",
            "no certificate",
        ),
        (
            &["--tls-cert", "chain.pem", "--tls-key", "chain.pem"],
            2,
            "E_USAGE",
            "no private key",
        ),
        (
            &["--tls-cert", "nowhere.pem", "--tls-key", "key.pem"],
            1,
            "E_READ",
            "nowhere.pem",
        ),
        (
            &["--tls", "self-signed", "--tls-name", "not a host"],
            2,
            "E_USAGE",
            "not a host",
        ),
    ] {
        let slip = server(flags).exits(exit).says(code);
        assert!(slip.stderr.contains(hint), "{flags:?}: {}", slip.stderr);
        assert_eq!(slip.stdout, "");
    }
    // A key that is gone is not replaced behind the back of machines that know the certificate.
    let world = self_signed();
    fs::remove_file(world.path("server/tls/key.pem")).unwrap();
    drop(world.invite());
    let mut world = world;
    world.stop_server();
    let gone = run(command(world.dir()).arg("server").args(SELF_SIGNED));
    assert!(gone.exits(2).says("E_USAGE").stderr.contains("is gone"));
}

#[cfg(unix)]
#[test]
fn plain_http_to_another_computer_costs_a_word() {
    let world = World::new();
    let a = with_key(&world, "a");
    let token = world.invite();
    // The system takes it for this computer; who reads it does not have to.
    let url = world.url.replace("127.0.0.1", "0.0.0.0");
    let refused = register(&a, &url, &token, &[]).exits(2);
    assert!(refused.says("E_USAGE").stderr.contains("--insecure"));
    let warned = register(&a, &url, &token, &["--insecure"]).exits(0);
    assert!(
        warned.stderr.contains("whoever is on the way"),
        "{}",
        warned.stderr
    );
    a.sync_once().exits(0);
}
