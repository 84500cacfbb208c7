//! Whom a machine takes for its server.
//!
//! With the hash of a certificate, from the invitation, that certificate and no other, whatever names and dates it
//! carries; otherwise what an authority vouches for, the system's or a given file's. Either way the handshake must be
//! signed with the certificate's key (RFC 8446, 4.4.3; RFC 5246, 7.4.3).

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use syncagent_protocol::Code;

use super::RemoteError;

/// What makes a server the right one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Plain http to another computer is allowed.
    pub insecure: bool,
    /// SHA-256 of the one certificate (its DER) that is accepted.
    pub certificate: Option<[u8; 32]>,
    /// Certificates in PEM of the authorities that count, in place of the system's.
    pub ca: Option<PathBuf>,
}

impl Trust {
    /// What a certificate is checked by, in words.
    pub(super) fn authorities(&self) -> String {
        match &self.ca {
            Some(file) => format!("the authorities in {}", file.display()),
            None => "the authorities of this system".to_owned(),
        }
    }

    /// How TLS is spoken with a server that is trusted so.
    pub(super) fn tls(&self) -> Result<ClientConfig, RemoteError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = self.verifier(&provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| untrusted(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(config)
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, RemoteError> {
        if let Some(hash) = self.certificate {
            return Ok(Arc::new(Pinned {
                hash,
                provider: Arc::clone(provider),
            }));
        }
        let Some(file) = &self.ca else {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
            return Ok(Arc::new(system.map_err(|error| {
                untrusted(format!(
                    "the certificates that this system trusts cannot be read ({error}): install them, or name a file with \
                     --ca"
                ))
            })?));
        };
        let bad = |why: String| RemoteError::Refused {
            code: Code::Usage,
            message: format!("cannot use {} as --ca: {why}", file.display()),
        };
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))?;
        for certificate in certificates {
            let added = certificate
                .map_err(|error| error.to_string())
                .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
            added.map_err(&bad)?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it, in PEM".to_owned()));
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(verifier.build().map_err(|error| bad(error.to_string()))?)
    }
}

/// TLS for an address that has none: it trusts nobody, and reads nothing to know that.
pub(super) fn nobody() -> Result<ClientConfig, RemoteError> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| untrusted(error.to_string()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    )
}

fn untrusted(message: String) -> RemoteError {
    RemoteError::Untrusted(message)
}

/// One certificate and no other.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// The server showed another certificate than the one that is pinned.
#[derive(Debug, thiserror::Error)]
#[error("another certificate")]
struct Another;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if syncagent_protocol::sha256(&[end_entity.as_ref()]) == self.hash {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::Other(OtherError(Arc::new(Another))).into())
    }

    // A certificate is public: who shows it must also prove to have its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a failed connection to `host` comes down to, if TLS is why it failed.
pub(super) fn failure(
    host: &str,
    authorities: &str,
    error: &(dyn Error + 'static),
) -> Option<RemoteError> {
    let why = match find(error)? {
        rustls::Error::InvalidMessage(_) => {
            return Some(RemoteError::Offline(format!(
                "{host} does not speak TLS at this port: is its address one with http://?"
            )));
        }
        rustls::Error::InvalidCertificate(why) => why,
        error => return Some(RemoteError::Offline(error.to_string())),
    };
    Some(untrusted(match why {
        CertificateError::Other(OtherError(other)) if other.is::<Another>() => format!(
            "{host} shows another certificate than the one this machine knows, so nothing was sent: either somebody stands \
             between, or the server has a new certificate. If it has, take a new invitation from it and run `syncagent \
             register` again"
        ),
        CertificateError::BadSignature => format!(
            "{host} shows a certificate and cannot prove that it is its own, so nothing was sent: somebody may stand between"
        ),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => format!(
            "the certificate of {host} is of another time, so nothing was sent: {why}. Is this computer's clock right? If it is, \
             the server needs a new certificate"
        ),
        why => format!(
            "{authorities} do not vouch for {host}, so nothing was sent: {why}. A server that made its certificate itself is trusted through \
             an invitation of that server; for an authority of one's own there is --ca FILE"
        ),
    }))
}

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error was made of is not its source.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        at = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
