//! The TLS of checks: who is trusted, and what a failed handshake means.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::{Anchors, Tls};

/// Added where a server has nothing in common with us: the versions and
/// ciphers of Windows before Server 2016 (with certificates of RSA keys) and of
/// what ran OCS are too old for this implementation of TLS.
const TOO_OLD: &str = "checks speak TLS 1.2 and 1.3 with ECDHE and AES-GCM or ChaCha20; \
                       for an older server take `type: tcp`";

/// The client side for one server.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// A full handshake: nothing is resumed, so every check meets the server's
    /// certificate.
    ///
    /// # Errors
    /// The handshake's, in words.
    pub async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| words(&error))
    }
}

/// Clients that were made: servers whose checks trust the same share a
/// configuration.
#[derive(Debug, Default)]
pub struct TlsClients(Vec<(Option<Anchors>, Arc<ClientConfig>)>);

impl TlsClients {
    /// The client for a server.
    ///
    /// # Errors
    /// Where the provider of cryptography or a certificate cannot be used,
    /// in words.
    pub fn client(&mut self, tls: &Tls, server: SocketAddr) -> Result<TlsClient, String> {
        let name = match &tls.sni {
            Some(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            // Nothing is asked for; the certificate must be the address' own.
            None => ServerName::from(server.ip()),
        };
        Ok(TlsClient {
            config: self.config(&tls.verify)?,
            name,
        })
    }

    fn config(&mut self, verify: &Option<Anchors>) -> Result<Arc<ClientConfig>, String> {
        if let Some((_, config)) = self.0.iter().find(|(known, _)| known == verify) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(verify).map_err(|error| error.to_string())?);
        self.0.push((verify.clone(), Arc::clone(&config)));
        Ok(config)
    }
}

fn config(verify: &Option<Anchors>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = match verify {
        Some(anchors) => {
            let mut roots = RootCertStore::empty();
            for certificate in anchors.certificates.iter() {
                roots.add(CertificateDer::from(certificate.clone()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes every certificate, as HAProxy's `verify none`: a check asks whether
/// the server serves, and trusts it with nothing.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A certificate with a key that signs in an old way is taken as well.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        schemes.extend([
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]);
        schemes
    }
}

/// A failed handshake in words.
fn words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match inner {
        Some(Error::AlertReceived(
            alert @ (AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure),
        )) => format!("the server's alert is {alert:?}; {TOO_OLD}"),
        Some(Error::AlertReceived(alert)) => format!("the server's alert is {alert:?}"),
        Some(error @ Error::PeerIncompatible(_)) => format!("{error}; {TOO_OLD}"),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
