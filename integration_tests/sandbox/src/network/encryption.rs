//! TLS in front of a server that has none.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Takes encrypted connections and forwards what they carry. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Encryption {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Encryption {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Encryption {
    /// Listens on a free port and forwards to `target`, with a certificate and its key.
    ///
    /// # Errors
    /// When the certificate is unusable or no port can be bound.
    pub async fn start(
        target: SocketAddr,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Self> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("use the certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a port of 127.0.0.1")?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Clients that refuse the certificate are what some tests are about.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Ok(Self { address, server })
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}
