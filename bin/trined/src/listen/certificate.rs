//! The daemon's certificate: one that was given, or one of its own.
//!
//! A certificate of its own is made once and kept, signed by itself. Clients know it again by its fingerprint, as
//! ssh does hosts.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

const CHAIN: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Who the daemon is to clients.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let first = self.chain.first().map_or(&[][..], |certificate| certificate.as_ref());
        Sha256::digest(first).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// How TLS is spoken: 1.2 and 1.3, with HTTP/1.1 in it.
    ///
    /// # Errors
    /// When key and certificate are not each other's.
    pub fn into_config(self) -> anyhow::Result<ServerConfig> {
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config
            .with_single_cert(self.chain, self.key)
            .context("certificate and key do not belong together")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Reads a chain and its key.
///
/// # Errors
/// When a file cannot be read, or has none.
pub fn read(chain: &Path, key: &Path) -> anyhow::Result<Identity> {
    let no_chain = || format!("cannot read certificates, in PEM, from {}", chain.display());
    let certificates = CertificateDer::pem_file_iter(chain).with_context(no_chain)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(no_chain)?;
    if certificates.is_empty() {
        anyhow::bail!("{} has no certificate in PEM", chain.display());
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read a private key, in PEM, from {}", key.display()))?;
    Ok(Identity { chain: certificates, key })
}

/// The one in this folder, which is made if there is none.
///
/// # Errors
/// When it cannot be kept or read.
pub fn own(folder: &Path) -> anyhow::Result<Identity> {
    let (chain, key) = (folder.join(CHAIN), folder.join(KEY));
    // The certificate is written last: if it is there, so is its key.
    if !chain.exists() {
        make(folder, &chain, &key)
            .with_context(|| format!("cannot make a certificate in {}", folder.display()))?;
    }
    read(&chain, &key)
}

fn make(folder: &Path, chain: &Path, key: &Path) -> anyhow::Result<()> {
    let node = rustix::system::uname();
    let host = node.nodename().to_str().unwrap_or_default();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend((!host.is_empty() && host != "localhost").then(|| host.to_owned()));
    let mut params = CertificateParams::new(names)?;
    // Known by its fingerprint, it need not end: RFC 5280, 4.1.2.5.
    params.not_after = date_time_ymd(9999, 12, 31);
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    keep(key, &pair.serialize_pem())?;
    keep(chain, &certificate.pem())
}

/// Writes a file that is there whole or not at all.
fn keep(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(fs::rename(new, path)?)
}
