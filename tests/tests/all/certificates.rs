//! A CA of our own, and certificates of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use zentra_tests::services::folder;

/// A CA whose certificate is a file.
pub(crate) struct Ca {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
pub(crate) struct Certified {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

impl Ca {
    /// A new one.
    pub(crate) fn new() -> Self {
        let folder = folder("ca");
        let mut of = loud(CertificateParams::new(Vec::new()));
        of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        of.distinguished_name.push(DnType::CommonName, "Zentra tests");
        let key = loud(KeyPair::generate());
        let own = loud(of.self_signed(&key));
        write(&folder.join("ca.pem"), &own.pem());
        Self { folder, issuer: Issuer::new(of, key) }
    }

    /// The file of its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate with this common name, for `localhost` and for clients.
    pub(crate) fn certify(&self, name: &str) -> Certified {
        let mut of = loud(CertificateParams::new(vec!["localhost".into()]));
        of.distinguished_name.push(DnType::CommonName, name);
        of.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = loud(KeyPair::generate());
        let signed = loud(of.signed_by(&own, &self.issuer));
        let path = |kind| self.folder.join(format!("{name}.{kind}"));
        let made = Certified { certificate: path("pem"), key: path("key") };
        write(&made.certificate, &signed.pem());
        write(&made.key, &own.serialize_pem());
        loud(std::fs::set_permissions(&made.key, Permissions::from_mode(0o600)));
        made
    }
}

fn write(path: &Path, text: &str) {
    loud(std::fs::write(path, text));
}

fn loud<T, E: std::fmt::Display>(done: Result<T, E>) -> T {
    done.unwrap_or_else(|error| panic!("{error}"))
}
