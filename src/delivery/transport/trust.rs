//! Whom a TLS connection trusts, and who this program is to the other side.
//!
//! In: files with PEM. Out: certificates and a key. Nothing can be lost here: what cannot be read is an error that
//! names the file, when the pipeline is built and not when the first message is sent.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::address::TlsFiles;

/// What is accepted where a file is wrong.
pub(super) const ACCEPTED: &str =
    "files with PEM certificates, and with the private key that belongs to them";

/// Certificates and a key, as they were read. Cannot be printed: there is a secret in it.
pub(super) struct Trust {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

/// Who this program is.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    #[cfg(feature = "http")]
    key_pem: Vec<u8>,
}

impl Trust {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is not what it should be, and why.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, String> {
        let roots = match &files.ca {
            Some(path) => certificates("ca", path)?,
            None => system_roots()?,
        };
        let identity = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => Some(Identity::read(cert, key)?),
            _ => None,
        };
        Ok(Trust { roots, identity })
    }

    /// How `tls://` connections are made: verified, by the system's certificates or the given ones, with TLS 1.2 or 1.3.
    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        // A system's store may hold one that is too old to be understood; the others serve all the same.
        if roots.add_parsable_certificates(self.roots.iter().cloned()).0 == 0 {
            return Err(String::from("no certificate that can be trusted"));
        }
        // The provider is named, because a program may use rustls for itself with another one.
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| format!("cert and key do not go together: {error}")),
        }
    }

    /// The same for requests.
    #[cfg(feature = "http")]
    pub(super) fn request_config(&self) -> Result<ureq::tls::TlsConfig, String> {
        use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};
        // The checks of the other form hold for this one too, which panics where that one gives an error.
        self.client_config()?;
        let owned = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
        let roots: Vec<_> = self.roots.iter().map(owned).collect();
        let identity = match &self.identity {
            None => None,
            Some(identity) => {
                let chain: Vec<_> = identity.chain.iter().map(owned).collect();
                let key = PrivateKey::from_pem(&identity.key_pem).map_err(|error| format!("key: {error}"))?;
                Some(ClientCert::new_with_certs(&chain, key))
            }
        };
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(identity)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{option} {path:?}: no certificate in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{option} {path:?}: {}", explained(error))),
    }
}

impl Identity {
    fn read(cert: &Path, key: &Path) -> Result<Self, String> {
        let chain = certificates("cert", cert)?;
        let key_pem = std::fs::read(key).map_err(|error| format!("key {key:?}: {error}"))?;
        let parsed = PrivateKeyDer::from_pem_slice(&key_pem);
        let parsed = parsed.map_err(|error| format!("key {key:?}: {}", explained(error)))?;
        Ok(Identity {
            chain,
            key: parsed,
            #[cfg(feature = "http")]
            key_pem,
        })
    }
}

/// In words that hold nothing of the file.
fn explained(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => String::from("no PEM of that kind in it"),
        _ => String::from("not well-formed PEM"),
    }
}

/// What the machine trusts: a company's own certificates are there too, and no list grows old in a binary.
fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("this system has no certificates to trust{why}: name some with the option ca"))
}
