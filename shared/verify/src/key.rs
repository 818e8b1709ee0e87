//! Keys from configured secrets, and comparison of signatures.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use p521::ecdsa::signature::Verifier;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use spki::SubjectPublicKeyInfoRef;
use spki::der::{Decode, Document};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use x509_cert::Certificate;

use super::jwk;
use crate::secret::Secret;

/// Algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SHA-1 (FIPS 180-4).
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 with SHA-256, the signature in DER (FIPS 186-4, RFC 3279).
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// RSA with SHA-256, PKCS #1 v1.5 (RFC 8017), 2048 to 8192 bits.
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// RSA with SHA-256, PSS (RFC 8017), 2048 to 8192 bits.
    #[serde(rename = "rsa-pss-sha256")]
    RsaPssSha256,
    /// ECDSA on P-256 with SHA-256, the signature as two numbers (RFC 7518, section 3.4).
    Es256,
    /// ECDSA on P-521 with SHA-512, the signature as two numbers (RFC 7518, section 3.4).
    Es512,
    /// A plain digest over content that holds the secret.
    Sha1,
    /// The same with SHA-256.
    Sha256,
    /// The same with SHA-512.
    Sha512,
    /// None: the secret itself is sent. Whoever has seen one callback can forge any.
    Token,
}

/// How a secret becomes the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFormat {
    /// The bytes are the key.
    Utf8,
    /// Its text in Unicode's form NFKD, as UTF-8 (the EasyPost SDKs).
    Nfkd,
    /// Base64, after `whsec_` if that is there (Standard Webhooks), or after `v1,whsec_` (Supabase).
    Whsec,
    /// Hexadecimal.
    Hex,
    /// Standard base64, with or without padding.
    Base64,
    /// A public key (SubjectPublicKeyInfo, RFC 5280), as PEM or as base64 of its DER.
    Spki,
    /// A public key as JSON Web Key, or a set of them (RFC 7517).
    Jwk,
    /// The public key of a certificate (RFC 5280), as PEM.
    X509,
    /// The SHA-1 digest of its bytes.
    Sha1,
}

impl Algorithm {
    /// Whether the key is public, so that it can verify but not sign.
    pub fn is_public(self) -> bool {
        self == Self::Es512 || self.public().is_some()
    }

    /// Whether it is a digest without a key.
    pub fn is_digest(self) -> bool {
        matches!(self, Self::Sha1 | Self::Sha256 | Self::Sha512)
    }

    /// Its name in a JSON Web Signature (RFC 7518, section 3.1; RFC 8037), if it has one.
    pub fn jws(self) -> Option<&'static str> {
        match self {
            Self::HmacSha256 => Some("HS256"),
            Self::HmacSha384 => Some("HS384"),
            Self::HmacSha512 => Some("HS512"),
            Self::RsaSha256 => Some("RS256"),
            Self::RsaPssSha256 => Some("PS256"),
            Self::Es256 => Some("ES256"),
            Self::Es512 => Some("ES512"),
            Self::Ed25519 => Some("EdDSA"),
            _ => None,
        }
    }

    fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Ed25519 => Some(&signature::ED25519),
            Self::EcdsaP256Sha256 => Some(&signature::ECDSA_P256_SHA256_ASN1),
            Self::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
            Self::RsaSha256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RsaPssSha256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            _ => None,
        }
    }

    /// Whether one of the signatures fits this content. The body is not copied, except for public
    /// keys.
    pub(super) fn fits(self, key: &[u8], content: &impl Chunks, signatures: &[Vec<u8>]) -> bool {
        match self {
            Self::HmacSha1 => mac_fits::<Hmac<Sha1>>(key, content, signatures),
            Self::HmacSha256 => mac_fits::<Hmac<Sha256>>(key, content, signatures),
            Self::HmacSha384 => mac_fits::<Hmac<Sha384>>(key, content, signatures),
            Self::HmacSha512 => mac_fits::<Hmac<Sha512>>(key, content, signatures),
            Self::Token => any(signatures, |token| token.ct_eq(key).into()),
            Self::Sha1 => digest_fits::<Sha1>(content, signatures),
            Self::Sha256 => digest_fits::<Sha256>(content, signatures),
            Self::Sha512 => digest_fits::<Sha512>(content, signatures),
            Self::Es512 => es512_fits(key, content, signatures),
            _ => {
                let Some(algorithm) = self.public() else { return false };
                let (key, content) = (UnparsedPublicKey::new(algorithm, key), whole(content));
                any(signatures, |candidate| key.verify(&content, candidate).is_ok())
            }
        }
    }

    /// The signature with this key; `None` for public keys.
    pub(crate) fn sign(self, key: &[u8], content: &impl Chunks) -> Option<Vec<u8>> {
        match self {
            Self::HmacSha1 => made::<Hmac<Sha1>>(key, content),
            Self::HmacSha256 => made::<Hmac<Sha256>>(key, content),
            Self::HmacSha384 => made::<Hmac<Sha384>>(key, content),
            Self::HmacSha512 => made::<Hmac<Sha512>>(key, content),
            Self::Token => Some(key.to_vec()),
            Self::Sha1 => Some(digest::<Sha1>(content)),
            Self::Sha256 => Some(digest::<Sha256>(content)),
            Self::Sha512 => Some(digest::<Sha512>(content)),
            _ => None,
        }
    }
}

/// Signed content in chunks.
pub(crate) trait Chunks {
    /// Passes each chunk on.
    fn each(&self, to: &mut impl FnMut(&[u8]));
}

impl<const N: usize> Chunks for [&[u8]; N] {
    fn each(&self, to: &mut impl FnMut(&[u8])) {
        self.iter().for_each(|bytes| to(bytes));
    }
}

fn whole(content: &impl Chunks) -> Vec<u8> {
    let mut bytes = Vec::new();
    content.each(&mut |chunk| bytes.extend_from_slice(chunk));
    bytes
}

/// All are compared, so that the time doesn't show which one fits.
fn any(signatures: &[Vec<u8>], fits: impl Fn(&[u8]) -> bool) -> bool {
    signatures.iter().fold(false, |found, candidate| found | fits(candidate))
}

fn mac<M: Mac + KeyInit>(key: &[u8], content: &impl Chunks) -> Option<M> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    content.each(&mut |bytes| mac.update(bytes));
    Some(mac)
}

/// In constant time.
fn mac_fits<M: Mac + KeyInit + Clone>(
    key: &[u8],
    content: &impl Chunks,
    signatures: &[Vec<u8>],
) -> bool {
    let Some(mac) = mac::<M>(key, content) else { return false };
    any(signatures, |candidate| mac.clone().verify_slice(candidate).is_ok())
}

fn made<M: Mac + KeyInit>(key: &[u8], content: &impl Chunks) -> Option<Vec<u8>> {
    Some(mac::<M>(key, content)?.finalize().into_bytes().to_vec())
}

fn digest<D: Digest>(content: &impl Chunks) -> Vec<u8> {
    let mut digest = D::new();
    content.each(&mut |bytes| digest.update(bytes));
    digest.finalize().to_vec()
}

fn digest_fits<D: Digest>(content: &impl Chunks, signatures: &[Vec<u8>]) -> bool {
    let own = digest::<D>(content);
    any(signatures, |candidate| own.ct_eq(candidate).into())
}

/// `ring` doesn't support this curve.
fn es512_fits(key: &[u8], content: &impl Chunks, signatures: &[Vec<u8>]) -> bool {
    let Ok(key) = p521::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let content = whole(content);
    any(signatures, |candidate| {
        let signature = p521::ecdsa::Signature::from_slice(candidate);
        signature.is_ok_and(|signature| key.verify(&content, &signature).is_ok())
    })
}

impl KeyFormat {
    /// The keys of a secret: one, or several of a set. Empty if it has another form.
    pub(crate) fn keys(self, secret: &Secret) -> Vec<Cow<'_, [u8]>> {
        match self {
            Self::Jwk => jwk::keys(secret.expose()).into_iter().map(Cow::Owned).collect(),
            _ => self.key(secret).into_iter().collect(),
        }
    }

    /// The only key of a secret.
    pub(crate) fn key(self, secret: &Secret) -> Option<Cow<'_, [u8]>> {
        let bytes = secret.expose();
        if bytes.is_empty() {
            return None;
        }
        let base64 =
            |text: &[u8]| STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok();
        let key = match self {
            Self::Utf8 => Some(Cow::Borrowed(bytes)),
            Self::Nfkd => {
                let text: String = std::str::from_utf8(bytes).ok()?.nfkd().collect();
                Some(Cow::Owned(text.into_bytes()))
            }
            Self::Whsec => {
                let bare = bytes.strip_prefix(b"v1,").unwrap_or(bytes);
                base64(bare.strip_prefix(b"whsec_").unwrap_or(bare)).map(Cow::Owned)
            }
            Self::Hex => hex::decode(bytes).ok().map(Cow::Owned),
            Self::Base64 => base64(bytes).map(Cow::Owned),
            Self::Spki => public(bytes).map(Cow::Owned),
            Self::Sha1 => Some(Cow::Owned(Sha1::digest(bytes).to_vec())),
            Self::X509 => certified(bytes).map(Cow::Owned),
            Self::Jwk => None,
        };
        // For HMAC a key of zero bytes equals the empty key, with which anyone can sign.
        key.filter(|key| key.iter().any(|&byte| byte != 0))
    }

    /// A secret of this format with this key. `None` for public keys.
    pub(crate) fn write(self, key: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 | Self::Nfkd | Self::Hex | Self::Sha1 => Some(hex::encode(key)),
            Self::Whsec => Some(format!("whsec_{}", STANDARD.encode(key))),
            Self::Base64 => Some(STANDARD.encode(key)),
            Self::Spki | Self::Jwk | Self::X509 => None,
        }
    }

    /// Whether a secret has this format.
    pub fn accepts(self, secret: &Secret) -> bool {
        !self.keys(secret).is_empty()
    }
}

/// The key from its SubjectPublicKeyInfo, in the form of its algorithm.
fn public(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let der = match text.starts_with("-----") {
        true => Document::from_pem(text).ok()?.1.as_bytes().to_vec(),
        false => STANDARD.decode(text).ok()?,
    };
    let info = SubjectPublicKeyInfoRef::from_der(&der).ok()?;
    info.subject_public_key.as_bytes().map(<[u8]>::to_vec)
}

/// The key of the first certificate, if it is valid now.
fn certified(text: &[u8]) -> Option<Vec<u8>> {
    let chain = Certificate::load_pem_chain(text).ok()?;
    let certificate = &chain.first()?.tbs_certificate;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let validity = &certificate.validity;
    let valid = validity.not_before.to_unix_duration() <= now
        && now <= validity.not_after.to_unix_duration();
    let key = certificate.subject_public_key_info.subject_public_key.as_bytes()?;
    valid.then(|| key.to_vec())
}
