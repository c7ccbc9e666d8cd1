//! Certificates of authorities, read from PEM files (RFC 7468).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Certificates as DER, or why there are none.
type Read = Result<Arc<Vec<Vec<u8>>>, String>;

/// What was read for one configuration: every backend inherits its cluster's
/// check, and no file is read twice for it.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    files: HashMap<PathBuf, Read>,
    host: Option<Read>,
}

impl Certificates {
    /// All of a file.
    pub fn of_file(&mut self, path: &Path) -> Read {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let read = read(path).and_then(|bytes| parse(&bytes)).map(Arc::new);
        self.files.insert(path.to_owned(), read.clone());
        read
    }

    /// All of the host's own store that can be used.
    pub fn of_host(&mut self) -> Read {
        self.host.get_or_insert_with(host_store).clone()
    }
}

fn host_store() -> Read {
    let loaded = rustls_native_certs::load_native_certs();
    let mut usable = loaded.certs;
    usable.retain(|certificate| is_anchor(certificate).is_ok());
    if usable.is_empty() {
        let cause = loaded.errors.first();
        let cause = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        return Err(format!(
            "this host's own store of certificates is empty{cause}"
        ));
    }
    let usable = usable.into_iter().map(|der| der.to_vec());
    Ok(Arc::new(usable.collect()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    // A pipe would keep us waiting.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("is longer than 4 MiB".to_owned());
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let certificate = certificate.map_err(|e| format!("is not valid PEM: {e}"))?;
        is_anchor(&certificate).map_err(|e| {
            let number = certificates.len() + 1;
            format!("certificate {number} cannot be used: {e}")
        })?;
        certificates.push(certificate.to_vec());
    }
    if certificates.is_empty() {
        return Err("has no certificate (a section that begins with \
                    -----BEGIN CERTIFICATE-----)"
            .to_owned());
    }
    Ok(certificates)
}

fn is_anchor(certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
    RootCertStore::empty().add(certificate.clone())
}
