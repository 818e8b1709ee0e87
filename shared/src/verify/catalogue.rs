//! The schemes that come along, one file each.

use super::scheme::Scheme;

macro_rules! catalogue {
    ($($name:literal)*) => {
        /// In alphabetical order.
        const CATALOGUE: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("providers/", $name, ".toml")))),*];
    };
}

catalogue! {
    "adyen-platform"
    "anthropic"
    "box"
    "cashfree"
    "chargebee"
    "clerk"
    "cloudconvert"
    "cloudinary"
    "coinbase-commerce"
    "creem"
    "discord"
    "dodopayments"
    "elevenlabs"
    "finch"
    "fingerprint"
    "getstream"
    "github"
    "gocardless"
    "gr4vy"
    "hookdeck"
    "hubspot"
    "hubspot-v1"
    "hubspot-v2"
    "imagekit"
    "kontent-ai"
    "line"
    "linear"
    "lithic"
    "liveblocks"
    "livekit"
    "mercadopago"
    "messagebird"
    "metronome"
    "modern-treasury"
    "mollie"
    "mux"
    "nango"
    "notion"
    "onfido"
    "openai"
    "orb"
    "paddle"
    "polar"
    "privy"
    "pusher"
    "qstash"
    "razorpay"
    "replicate"
    "resend"
    "retell"
    "sanity"
    "schematic"
    "sendgrid"
    "shopify"
    "slack"
    "square"
    "standard-webhooks"
    "stripe"
    "surge"
    "svix"
    "telnyx"
    "terra"
    "viber"
    "vonage"
    "webflow"
    "whop"
    "workos"
    "zoom"
}

impl Scheme {
    /// An entry of the catalogue.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = CATALOGUE.iter().find(|(known, _)| *known == name)?;
        Self::from_toml(text.parse().ok()?).ok()
    }

    /// The catalogue's names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_read_and_they_are_in_order() {
        for (name, text) in CATALOGUE {
            let read = Scheme::from_toml(text.parse().unwrap_or_default());
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
        assert!(CATALOGUE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(Scheme::named("nobody").is_none());
    }
}
