//! TLS of the server's own: a certificate that somebody else renews, or one made here, once.
//!
//! Machines know a certificate that vouches for itself by the SHA-256 of the whole of it (its DER), which travels in
//! each invitation; one of an authority they check by the authorities they know. TLS 1.3 (RFC 8446) and HTTP/1.1 only:
//! with HTTP/2 all transfers of a machine would share one small window.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::data_dir::{open_lock, private, write_private};
use crate::limits::CONNECTION_BUFFER_LEN;

/// Where the certificate of a server comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Made in the data directory when there is none, and kept for good.
    SelfSigned {
        /// Host names and addresses for those who check them. Machines with the certificate's hash do not.
        names: Vec<String>,
    },
    /// Files in PEM; each new connection gets what is in them now.
    Files {
        /// The certificate, and those that lead to an authority.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// `read`, `write`, ...
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Nothing can be done with what a file holds.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No certificate can be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

impl TlsError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            what,
            path: path.to_owned(),
            error,
        }
    }

    fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

/// What a server shows and how it speaks. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: Arc<rustls::ServerConfig>,
    shown: Arc<Shown>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the certificate of the server in `data`, or makes it, and notes for [`pin`] which one is in use.
    pub fn open(data: &Path, certificate: &Certificate) -> Result<Self, TlsError> {
        let dir = Dir::create(data)?;
        let (certificate, key) = dir.files(certificate)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown::open(certificate, key, Arc::clone(&provider))?);
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Make(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        dir.note_in_use(Some(&shown.certificate))?;
        Ok(Self {
            config: Arc::new(config),
            shown,
        })
    }

    /// What machines must know of the certificate: its SHA-256, if it vouches for itself.
    pub fn pin(&self) -> Result<Option<[u8; 32]>, TlsError> {
        pin_of(&self.shown.certificate)
    }

    /// Those of `names` that the certificate does not stand for.
    pub fn unnamed<'a>(&self, names: &'a [String]) -> Vec<&'a str> {
        let shown = self.shown.current();
        let parsed = shown
            .end_entity_cert()
            .and_then(ParsedCertificate::try_from);
        let Ok(parsed) = parsed else {
            return Vec::new();
        };
        let stands_for = |name: &str| {
            ServerName::try_from(name)
                .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        names
            .iter()
            .map(String::as_str)
            .filter(|name| !stands_for(name))
            .collect()
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(Arc::clone(&self.config))
            .accept_with(stream, |connection| {
                connection.set_buffer_limit(Some(CONNECTION_BUFFER_LEN));
            })
            .await
    }
}

/// Notes that the server in `data` speaks plain HTTP.
pub fn none(data: &Path) -> Result<(), TlsError> {
    Dir(data.join("tls")).note_in_use(None)
}

/// What an invitation to the server in `data` must say of its certificate: its SHA-256, if it vouches for itself.
///
/// `certificate` is what the settings say. Where they say nothing, what counts is what the server that was started
/// last says, which may be one that runs.
pub fn pin(data: &Path, certificate: Option<&Certificate>) -> Result<Option<[u8; 32]>, TlsError> {
    match certificate {
        Some(certificate) => pin_of(&Dir::create(data)?.files(certificate)?.0),
        None => match Dir(data.join("tls")).in_use()? {
            Some(path) => pin_of(&path),
            None => Ok(None),
        },
    }
}

/// Where a server keeps what it made itself.
struct Dir(PathBuf);

impl Dir {
    fn create(data: &Path) -> Result<Self, TlsError> {
        let dir = data.join("tls");
        private::create_dir_all(&dir).map_err(TlsError::io("create", &dir))?;
        Ok(Self(dir))
    }

    /// The files of certificate and key; made first, if that is to be.
    fn files(&self, certificate: &Certificate) -> Result<(PathBuf, PathBuf), TlsError> {
        let names = match certificate {
            Certificate::Files { certificate, key } => {
                return Ok((certificate.clone(), key.clone()));
            }
            Certificate::SelfSigned { names } => names,
        };
        let (certificate, key) = (self.0.join("certificate.pem"), self.0.join("key.pem"));
        // A server and an `invite` may start together.
        let path = self.0.join("lock");
        let turn = open_lock(&path).map_err(TlsError::io("open", &path))?;
        turn.lock().map_err(TlsError::io("lock", &path))?;
        let made = certificate
            .try_exists()
            .map_err(TlsError::io("read", &certificate))?;
        if !made {
            let (certificate_pem, key_pem) = make(names)?;
            // The key first: a certificate that is there has its key.
            write_private(&key, key_pem.as_bytes()).map_err(TlsError::io("write", &key))?;
            write_private(&certificate, certificate_pem.as_bytes())
                .map_err(TlsError::io("write", &certificate))?;
        } else if !key.try_exists().map_err(TlsError::io("read", &key))? {
            let why = format!(
                "the key of this certificate, {}, is gone. Put it back; or remove the certificate, so that a new one is \
                 made, and register every machine again",
                key.display()
            );
            return Err(TlsError::content(&certificate, why));
        }
        Ok((certificate, key))
    }

    fn in_use_path(&self) -> PathBuf {
        self.0.join("in-use")
    }

    fn note_in_use(&self, certificate: Option<&Path>) -> Result<(), TlsError> {
        let path = self.in_use_path();
        let Some(certificate) = certificate else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(TlsError::io("remove", &path)(error))
                }
                _ => Ok(()),
            };
        };
        let text = certificate
            .to_str()
            .ok_or_else(|| TlsError::content(certificate, "the name of this file is not text"))?;
        write_private(&path, text.as_bytes()).map_err(TlsError::io("write", &path))
    }

    fn in_use(&self) -> Result<Option<PathBuf>, TlsError> {
        let path = self.in_use_path();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TlsError::io("read", &path)(error)),
        }
    }
}

/// A certificate that vouches for itself, and its key, in PEM.
fn make(names: &[String]) -> Result<(String, String), TlsError> {
    let bad = |error: rcgen::Error| TlsError::Make(error.to_string());
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for name in names {
        if !is_name(name) {
            let why = format!("'{name}' is no host name and no address");
            return Err(TlsError::Make(why));
        }
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    let mut params = rcgen::CertificateParams::new(all).map_err(bad)?;
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "SyncAgent server");
    params.distinguished_name = name;
    // "No well-defined expiration date" (RFC 5280, 4.1.2.5): it is good until somebody replaces it.
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let key = rcgen::KeyPair::generate().map_err(bad)?;
    let certificate = params.self_signed(&key).map_err(bad)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn pin_of(path: &Path) -> Result<Option<[u8; 32]>, TlsError> {
    let chain = chain(path)?;
    let Some(certificate) = chain.first() else {
        return Ok(None);
    };
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| TlsError::content(path, format!("no usable certificate: {error}")))?;
    let vouches_for_itself = parsed.issuer() == parsed.subject();
    Ok(vouches_for_itself.then(|| syncagent_protocol::sha256(&[certificate.as_ref()])))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> = all.map_err(|error| pem_error(path, error))?;
    match all.is_empty() {
        true => Err(TlsError::content(
            path,
            "there is no certificate in it, in PEM",
        )),
        false => Ok(all),
    }
}

fn pem_error(path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(error) => TlsError::io("read", path)(error),
        pem::Error::NoItemsFound => {
            TlsError::content(path, "there is no private key in it, in PEM")
        }
        error => TlsError::content(path, format!("not PEM: {error}")),
    }
}

/// What is shown to those who connect: what the files hold now, or what they last held that could be used.
#[derive(Debug)]
struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    stamps: [Stamp; 2],
    key: Arc<CertifiedKey>,
}

/// What changes when a file is written.
type Stamp = Option<(SystemTime, u64)>;

impl Shown {
    fn open(
        certificate: PathBuf,
        key: PathBuf,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        // The stamps first: what is written in between is then read again.
        let stamps = [&certificate, &key].map(|path| stamp(path));
        let current = Current {
            stamps,
            key: Arc::new(load(&certificate, &key, &provider)?),
        };
        Ok(Self {
            certificate,
            key,
            provider,
            current: Mutex::new(current),
        })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = [&self.certificate, &self.key].map(|path| stamp(path));
        if stamps != current.stamps {
            current.stamps = stamps;
            match load(&self.certificate, &self.key, &self.provider) {
                Ok(key) => {
                    current.key = Arc::new(key);
                    tracing::info!(certificate = %self.certificate.display(), "the certificate was read anew");
                }
                // Half of a renewal, most likely: the other half changes the stamps again.
                Err(error) => {
                    tracing::warn!(%error, "the certificate before this change stays in use")
                }
            }
        }
        Arc::clone(&current.key)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn load(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = chain(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, error))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!(
                    "not the key of the certificate in {}",
                    certificate.display()
                )
            }
            error => format!("cannot be used with {}: {error}", certificate.display()),
        };
        TlsError::content(key, why)
    })
}

/// Whether a text can stand among the names of a certificate.
pub fn is_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}
