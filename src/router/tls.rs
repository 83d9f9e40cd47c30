//! Encrypted connections of the router. In: connections. Out: what is said in them.
//!
//! Nothing can be lost here: a client that cannot agree with us is turned away before it has sent a message.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::config::ServerFiles;
use super::connection::{Conversation, Plain};

/// An encrypted connection.
pub(super) type Encrypted = StreamOwned<ServerConnection, Plain>;

/// Who an input is.
#[derive(Clone)]
pub(super) struct Identity {
    config: Arc<ServerConfig>,
    /// How long a client may take to agree on a key.
    handshake: Duration,
}

impl Identity {
    /// Reads the files; an error names the one that is wrong.
    pub(super) fn read(files: &ServerFiles, handshake: Duration) -> io::Result<Self> {
        // The provider is named, because a program may use rustls for itself with another one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| named(path, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|error| named(path, error))?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&contents(&files.key)?);
        let key = key.map_err(|_| named(&files.key, "no private key as PEM in it"))?;
        let config = builder.with_single_cert(certificates(&files.cert)?, key);
        Ok(Identity { config: Arc::new(config.map_err(|error| named(&files.cert, error))?), handshake })
    }

    /// Agrees with a client, in time or not at all.
    pub(super) fn accept(&self, mut plain: Plain) -> io::Result<Encrypted> {
        let mut connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        let begun = Instant::now();
        while connection.is_handshaking() {
            let left = self.handshake.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            plain.set_patience(left)?;
            connection.complete_io(&mut plain)?;
        }
        Ok(StreamOwned::new(connection, plain))
    }
}

impl Conversation for Encrypted {
    fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.sock.set_patience(patience)
    }

    fn has_heard(&self) -> bool {
        self.sock.has_heard()
    }
}

fn named(path: &Path, problem: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", path.display()))
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = contents(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(named(path, "no certificate as PEM in it")),
    }
}
