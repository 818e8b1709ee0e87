//! Secrets that can't be printed by accident.

use std::fmt;

/// A secret's bytes. `Debug` is redacted and there is no `Display`, so neither logs nor error
/// messages can show it by accident.
#[derive(Clone)]
pub struct Secret {
    bytes: Vec<u8>,
    others_can_write: bool,
}

impl Secret {
    /// A secret from bytes, unchanged.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), others_can_write: false }
    }

    /// Marks a secret from a file that everyone can write to.
    pub fn written_by_others(self) -> Self {
        Self { others_can_write: true, ..self }
    }

    /// Whether it is from a file that everyone can write to.
    pub fn others_can_write(&self) -> bool {
        self.others_can_write
    }

    /// The bytes. The name makes each use visible in a review.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let secret = Secret::new("whsec_abcdef");
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(secret.expose(), b"whsec_abcdef");
    }
}
