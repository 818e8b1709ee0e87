//! Claims of a JSON Web Token (RFC 7519), which are checked after its signature.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Refusal;
use super::canonical::atlassian_qsh;
use crate::timestamp::Timestamp;

/// Claims that are compared with the request. `exp` and `nbf` are always checked if they are
/// present.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// The claim that represents the body. A token without it signs an empty body only.
    pub body: Option<Bound>,
    /// The claim that represents the address that the provider sends to.
    pub url: Option<Bound>,
    /// Whether `exp` is required.
    #[serde(default = "always")]
    pub expires: bool,
    /// Tolerance for `exp` and `nbf`.
    #[serde(default, deserialize_with = "duration")]
    pub leeway: Duration,
}

/// A claim that is derived from something else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Name of the claim.
    pub claim: String,
    /// How it is derived.
    #[serde(rename = "as")]
    pub form: Form,
}

/// Form of a derived claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As it is.
    Plain,
    /// SHA-256 in hexadecimal.
    #[serde(rename = "sha256-hex")]
    Sha256Hex,
    /// SHA-256 in base64, with or without padding.
    #[serde(rename = "sha256-base64")]
    Sha256Base64,
    /// SHA-256 in base64 for URLs, with or without padding.
    #[serde(rename = "sha256-base64url")]
    Sha256Base64url,
    /// SHA-256 in hexadecimal of method, path and query in Atlassian's own form, its "query string
    /// hash" (<https://developer.atlassian.com/cloud/jira/platform/understanding-jwt-for-connect-apps/>).
    AtlassianQsh,
}

impl Form {
    /// What the claim says of these bytes. None if they have no such form.
    pub(super) fn of(self, bytes: &[u8]) -> Option<String> {
        let digest = || Sha256::digest(bytes);
        Some(match self {
            Self::Plain => String::from_utf8_lossy(bytes).into_owned(),
            Self::Sha256Hex => hex::encode(digest()),
            Self::Sha256Base64 => STANDARD.encode(digest()).trim_end_matches('=').to_owned(),
            Self::Sha256Base64url => URL_SAFE_NO_PAD.encode(digest()),
            Self::AtlassianQsh => hex::encode(Sha256::digest(atlassian_qsh(bytes)?)),
        })
    }

    fn fits(self, claimed: &str, bytes: &[u8]) -> bool {
        let claimed = match self {
            Self::Sha256Base64 | Self::Sha256Base64url => claimed.trim_end_matches('='),
            Self::Plain | Self::Sha256Hex | Self::AtlassianQsh => claimed,
        };
        let own = self.of(bytes);
        own.is_some_and(|own| own.as_bytes().ct_eq(claimed.as_bytes()).into())
    }
}

impl Claims {
    /// Holds what a token says to the request that it came with.
    pub(super) fn judge(
        &self,
        said: &Value,
        body: &[u8],
        url: Option<&str>,
        received_at: Timestamp,
    ) -> Result<(), Refusal> {
        if self.issuer.as_deref().is_some_and(|issuer| said["iss"] != issuer) {
            return Err(Refusal::SignatureMismatch);
        }
        let bound = |bound: &Option<Bound>, bytes: &[u8]| match bound {
            None => true,
            Some(Bound { claim, form }) => match &said[claim.as_str()] {
                Value::Null => bytes.is_empty(),
                claimed => claimed.as_str().is_some_and(|claimed| form.fits(claimed, bytes)),
            },
        };
        if !bound(&self.body, body) || !bound(&self.url, url.unwrap_or_default().as_bytes()) {
            return Err(Refusal::SignatureMismatch);
        }
        match time(said, "exp")? {
            None if self.expires => return Err(Refusal::SignatureMalformed),
            Some(end) if received_at.since(end) >= self.grace() => {
                return Err(Refusal::TimestampStale);
            }
            _ => {}
        }
        if time(said, "nbf")?.is_some_and(|start| start.since(received_at) >= self.grace()) {
            return Err(Refusal::TimestampFuture);
        }
        Ok(())
    }

    /// A token is good until its second is over.
    fn grace(&self) -> Duration {
        self.leeway + Duration::from_secs(1)
    }
}

/// Seconds, perhaps with a fraction (RFC 7519, section 2).
fn time(said: &Value, claim: &str) -> Result<Option<Timestamp>, Refusal> {
    match &said[claim] {
        Value::Null => Ok(None),
        value => {
            let seconds = value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
            let seconds = seconds.ok_or(Refusal::SignatureMalformed)?;
            Ok(Some(Timestamp::from_secs(seconds as u64)))
        }
    }
}

fn always() -> bool {
    true
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("not a duration like \"5s\""))
}
