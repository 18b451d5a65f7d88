//! A private certificate authority.

use posthog_sandbox::network::Encryption;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use url::Url;

/// Issues certificates that nobody trusts by default.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate (PEM).
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        // Another name each time, as authorities have.
        parameters.distinguished_name.push(DnType::CommonName, uuid::Uuid::now_v7().to_string());
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// Puts TLS with a self-signed certificate, which it returns as PEM, in front of the server at `url`.
    pub(crate) async fn self_signed(url: &str, host: &str, is_authority: bool) -> (Encryption, String) {
        let mut parameters = CertificateParams::new(vec![host.to_owned()]).unwrap();
        parameters.is_ca = if is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let target = Url::parse(url).unwrap().socket_addrs(|| None).unwrap()[0];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let front = Encryption::start(target, certificate.der().clone(), key).await.unwrap();
        (front, certificate.pem())
    }

    /// Puts TLS with a certificate for `host` in front of the server at `url`.
    pub(crate) async fn encrypt(&self, url: &str, host: &str) -> Encryption {
        self.encrypt_until(url, host, 4000).await
    }

    /// The same with a certificate that ends with the beginning of `year`.
    pub(crate) async fn encrypt_until(&self, url: &str, host: &str, year: i32) -> Encryption {
        let mut parameters = CertificateParams::new(vec![host.to_owned()]).unwrap();
        parameters.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let target = Url::parse(url).unwrap().socket_addrs(|| None).unwrap()[0];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Encryption::start(target, certificate.der().clone(), key).await.unwrap()
    }
}
