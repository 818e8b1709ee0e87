//! Receipts: which claim a consumer answers for.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zentra_core::event::DeliveryKey;

/// A claim. As text it is opaque to consumers. It needs no signature: a consumer's token is bound
/// to the destination, and a wrong fence has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receipt {
    pub(super) key: DeliveryKey,
    pub(super) fence: u64,
}

#[derive(Debug)]
pub(super) struct Invalid;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{}.{}", self.fence, self.key.as_str())))
    }
}

impl FromStr for Receipt {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Invalid)?;
        let text = String::from_utf8(bytes).map_err(|_| Invalid)?;
        let (fence, key) = text.split_once('.').ok_or(Invalid)?;
        let fence = fence.parse().map_err(|_| Invalid)?;
        Ok(Self { key: DeliveryKey::parse(key).ok_or(Invalid)?, fence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zentra_core::event::Identity;

    use super::*;

    proptest! {
        #[test]
        fn a_receipt_is_read_as_it_was_written(fence in any::<u64>(), id in ".{1,80}") {
            let key = DeliveryKey::new("ledger", "acme", &Identity::from_text(&id));
            let receipt = Receipt { key, fence };
            prop_assert_eq!(receipt.to_string().parse::<Receipt>().unwrap(), receipt);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<Receipt>();
        }
    }
}
